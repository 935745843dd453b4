"""Mistakes end with one sentence and exit code 2, bugs with a file, Ctrl-C with 130."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from cli_runner import call

from warmstart.cli import app as app_module
from warmstart.cli.failures import exit_code_of
from warmstart.foundation.errors import UserError


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["demoo"], ["no command 'demoo'", "did you mean 'demo'?"]),
        (["transplent"], ["did you mean 'transplant'?"]),
        (["xyzzy"], ["no command 'xyzzy'", "choose one of cache, check, compare"]),
        (["vocab", "trian"], ["no command 'trian' of warmstart vocab", "did you mean 'train'?"]),
        (
            ["systems", "--rom", "shape"],
            ["'--rom' is not an option of warmstart systems", "did you mean '--room'?"],
        ),
        (["train", "m", "--lerning-rate", "1"], ["did you mean '--learning-rate'?"]),
        (["systems", "--room", "cellar"], ["no room is called 'cellar'", "vocabulary"]),
        (["systems", "--room", "vocabulry"], ["did you mean 'vocabulary'?"]),
        (["transplant", "m", "tok", "-o", "x"], ["extra argument (tok); it may belong to --tokenizer."]),
        (["show", "a", "b"], ["extra argument (b) (see `warmstart show --help`)"]),
        (["train"], ["missing option '--output-dir'"]),
        (
            ["train", "m", "--corpus", "c", "--set", "nonsense", "-o", "x"],
            ["--set needs key=value", "'nonsense'"],
        ),
        (
            ["train", "m", "--corpus", "c", "--set", "lerning_rate=1", "-o", "x"],
            ["did you mean 'learning_rate'?"],
        ),
        (["train", "m", "--corpus", "c", "--learning-rate", "fast", "-o", "x"], ["learning_rate", "'fast'"]),
        (["train", "m", "--corpus", "c", "--corpus.unit", "word", "-o", "x"], ["corpus.unit", "'word'"]),
        (["train", "-o", "x", "--corpus", "c"], ["'source' is required"]),
        (["run", "no-such.yaml"], ["no such file", "no-such.yaml"]),
        (["compare", "no-such.yaml"], ["no-such.yaml"]),
        (["report", "no-such-run"], ["no result.json", "no-such-run"]),
        (["reproduce", "wexel"], ["no reproduction is called 'wexel'"]),
        (["reproduce", "wechsel", "--scale", "huge"], ["'huge'", "small"]),
        (["schema", "trian"], ["unknown operation 'trian'", "did you mean 'train'?"]),
        (["show", "no/such/folder"], ["no/such/folder"]),
        (["data", "no/such/file.txt"], ["no/such/file.txt"]),
        (["check", "no-such-package"], ["'no-such-package' is not installed"]),
        (["check", "--kind", "initializer"], ["did you mean 'initialiser'?"]),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = call(*words)
    assert found.code == 2, found
    assert found.out == ""
    assert len(found.err.strip().splitlines()) == 1, found.err
    assert found.err.startswith("error: ")
    for part in parts:
        assert part in found.err
    assert list(tmp_path.iterdir()) == []


def test_json_leaves_nothing_on_standard_output_when_it_fails() -> None:
    found = call("systems", "--room", "cellar", "--json")
    assert (found.code, found.out) == (2, "")


def test_an_existing_output_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    found = call("train", "m", "--corpus", "c", "-o", str(tmp_path / "out"))
    assert found.code == 2
    assert "already exists" in found.err
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_a_bug_leaves_a_file_and_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path))
    monkeypatch.delenv("WARMSTART_DEBUG", raising=False)
    _replace_command(monkeypatch, lambda: 1 / 0)
    found = call("doctor")
    assert found.code == 1
    assert len(found.err.strip().splitlines()) == 1
    assert "ZeroDivisionError: division by zero" in found.err
    (file,) = (tmp_path / "crashes").iterdir()
    assert str(file) in found.err
    assert "Traceback" in file.read_text()
    assert "$ warmstart doctor" in file.read_text()


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_DEBUG", "1")
    _replace_command(monkeypatch, lambda: 1 / 0)
    found = call("doctor")
    assert found.code == 1
    assert "Traceback (most recent call last)" in found.err


@pytest.mark.parametrize(
    ("error", "code", "start"),
    [
        (KeyboardInterrupt(), 130, "stopped: "),
        (click.Abort(), 130, "stopped: "),
        (UserError("it is bad", where="here", fix="mend it"), 2, "error: it is bad (in here); mend it."),
    ],
)
def test_exit_codes(error: BaseException, code: int, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(error, []) == code
    assert capsys.readouterr().err.startswith(start)


def test_an_interrupted_training_says_where_it_continues(capsys: pytest.CaptureFixture[str]) -> None:
    from warmstart.training.interrupt import Interrupted

    assert exit_code_of(Interrupted(Path("run/checkpoint-7"), Path("run")), []) == 130
    assert capsys.readouterr().err.startswith(
        "stopped: training was stopped; the state is saved in checkpoint-7"
    )


def test_no_colour_is_honoured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    exit_code_of(UserError("plain"), [])
    assert capsys.readouterr().err == "error: plain.\n"


def _replace_command(monkeypatch: pytest.MonkeyPatch, callback: object) -> None:
    command = click.Command("doctor", callback=callback)  # type: ignore[arg-type]
    monkeypatch.setattr(app_module.CommandFolder, "get_command", lambda *_: command)
