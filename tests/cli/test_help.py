"""Help: complete, and cheap enough to answer at once."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from cli_runner import call

from warmstart.cli.app import app

COMMANDS = app.list_commands(click.Context(app))
EXPECTED = [
    "cache", "check", "compare", "data", "demo", "doctor", "evaluate", "export", "grow", "grow-learned",
    "hypernetwork", "initialise", "merge", "plan", "prune", "report", "reproduce", "run", "schema", "search",
    "show", "shrink", "skip", "systems", "train", "train-rows", "transplant", "upcycle", "vocab", "wrap",
]  # fmt: skip


def test_the_commands_are_the_files_of_the_folder() -> None:
    assert COMMANDS == EXPECTED
    text = call("--help").out
    assert all(f"  {name} " in text for name in COMMANDS)


def test_without_words_it_helps() -> None:
    assert call() == call("--help")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    found = call(name, "--help")
    assert found.code == 0
    assert found.err == ""
    assert found.out.startswith(f"Usage: warmstart {name}")
    command = app.get_command(click.Context(app), name)
    assert command is not None
    assert command.help
    members = command.commands.values() if isinstance(command, click.Group) else [command]
    for member in members:
        for parameter in member.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name}: {parameter.opts} has no help"


@pytest.mark.parametrize("name", [c for c in COMMANDS if c != "vocab"])
def test_every_command_can_print_json(name: str) -> None:
    command = app.get_command(click.Context(app), name)
    assert command is not None
    assert "--json" in {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys, json\n"
        "from warmstart.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as stop:\n    code = stop.code\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'matplotlib', 'scipy', 'gensim', 'datasets',"
        " 'pyarrow', 'accelerate', 'huggingface_hub'}\n"
        "print(json.dumps([code, sorted(heavy & set(sys.modules)), len(sys.modules)]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    code_, heavy, modules = json.loads(done.stderr.splitlines()[-1])
    assert code_ == 0
    assert heavy == []
    if words == ["--help"]:  # counting modules is a clock that does not depend on the machine
        assert modules < 260
        assert "pydantic" not in done.stderr


def test_the_version_is_printed() -> None:
    from warmstart import __version__

    assert call("--version").out == f"warmstart, version {__version__}\n"
