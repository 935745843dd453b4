"""Every command and Python block that the README and the docs show is executed.

A comment before a block may say how: `<!-- test: folder NAME; recipe FILE; append COMMAND=OPTIONS -->`
makes a folder of texts, writes the YAML block before it to a file, and adds options that keep the run short.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:<!-- test: (?P<how>.*?) -->\n)?```(?P<kind>\w+)\n(?P<body>.*?)```", re.S)
WITH_COMMANDS = [page for page in PAGES if "```console" in page.read_text(encoding="utf-8")]


def blocks(page: Path, kind: str) -> list[tuple[str, str]]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [(match["how"] or "", match["body"]) for match in found if match["kind"] == kind]


def commands(page: Path) -> list[tuple[list[str], str]]:
    """Words of each command and the directive that holds for it (a directive holds until the next one)."""
    found, directive = [], ""
    for how, body in blocks(page, "console"):
        directive = how or directive
        for line in body.splitlines():
            if line.startswith("$ "):
                found.append((shlex.split(line[2:]), directive))
    return found


def prepare(page: Path, how: str, folder: Path) -> dict[str, list[str]]:
    """Make what a directive asks for; returns options to add per command."""
    extra: dict[str, list[str]] = {}
    for part in filter(None, (piece.strip() for piece in how.split(";"))):
        verb, _, rest = part.partition(" ")
        if verb == "folder":
            make_texts(folder / rest)
        elif verb == "recipe":
            (folder / rest).write_text(blocks(page, "yaml")[0][1])
        elif verb == "append":
            for match in re.finditer(r"([\w-]+)=(.*?)(?=\s[\w-]+=-|$)", rest):
                extra[match[1]] = shlex.split(match[2])
        else:
            raise AssertionError(f"{page.name}: unknown directive {verb!r}")
    return extra


def make_texts(folder: Path) -> None:
    """Forty short documents of real prose: the licence text of this project, cut into paragraphs."""
    if folder.exists():
        return
    folder.mkdir()
    words = (ROOT / "LICENSE").read_text(encoding="utf-8").split()
    for number in range(40):
        (folder / f"{number:02}.txt").write_text(" ".join(words[number * 35 : number * 35 + 300]) + "\n")


def name_of(words: list[str]) -> str:
    return "-".join(words[1:3]) if words[1] == "vocab" else words[1]


def make_model(folder: Path, texts: Path) -> None:
    """A small untrained decoder with a tokenizer of its own."""
    from warmstart.vocabulary.forge import forge
    from warmstart.vocabulary.initialise import initialise
    from warmstart.vocabulary.settings import InitialiseSettings, TokenizerSettings

    tokenizer = folder.parent / f"{folder.name}-tokenizer"
    forge(TokenizerSettings.parse({"corpus": str(texts), "vocab_size": 500}), tokenizer)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    settings = {"tokenizer": str(tokenizer), "config": {"model_type": "llama", **sizes}}
    initialise(InitialiseSettings.parse(settings), folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda p: p.stem)
def test_every_command_runs(page: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    make_texts(tmp_path / "texts")
    make_model(tmp_path / "tiny-en", tmp_path / "texts")  # a folder wins over the source of that name
    binary = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{binary}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120"}
    extra: dict[str, list[str]] = {}
    seen = ""
    for words, how in commands(page):
        if how != seen:
            extra, seen = prepare(page, how, tmp_path), how
        if words[0] == "make":  # the targets run this very test; the demo has a test of its own
            words, place = ["make", "--dry-run", *words[1:]], ROOT
        else:
            assert words[0] == "warmstart", f"{page.name} shows a command that no test runs: {words}"
            words, place = words + extra.get(name_of(words), []), tmp_path
        done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert done.stdout.strip(), f"{shlex.join(words)} printed nothing"


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_texts(tmp_path / "my-texts")
    make_model(tmp_path / "my-source", tmp_path / "my-texts")
    found = blocks(ROOT / "docs" / "guide" / "python.md", "python")
    assert found
    for _, body in found:
        exec(compile(body, "python.md", "exec"), {})


def test_the_method_of_the_guide_passes_its_contract_checks() -> None:
    """The initialiser that the guide shows whole really is one."""
    from warmstart.foundation import contracts
    from warmstart.vocabulary.rows._base import initialisers

    (body,) = [b for _, b in blocks(ROOT / "docs" / "guide" / "adding-a-method.md", "python")]
    before = dict(initialisers._entries)
    try:
        namespace: dict[str, object] = {"__name__": "first_piece"}
        exec(compile(body, "adding-a-method.md", "exec"), namespace)
        outcomes = contracts.run_checks("initialiser", initialisers.get("first-piece"))
        assert len(outcomes) > 3 and not [o for o in outcomes if o.status == "failed"], outcomes
    finally:
        initialisers._entries.clear()
        initialisers._entries.update(before)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+\.md)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("reference/") and "../reference/" not in target:
            assert (page.parent / target).resolve().is_file(), f"{page.name} links to {target}"
