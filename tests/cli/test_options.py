"""Options generated from settings classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner
from pydantic import Field, model_validator

from warmstart.cli.options import SettingsCommand, leaves, settings_options, shorthand
from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings


class Inner(Settings):
    """Nested."""

    path: str
    """Where."""
    size: int = 3
    """How much."""

    @model_validator(mode="before")
    @classmethod
    def _word(cls, data: Any) -> Any:
        return {"path": data} if isinstance(data, str) else data


class Plain(Settings):
    """Nested, without a shorthand."""

    deep: bool = False
    """Deep or not."""


class Outer(Settings):
    """All kinds of fields."""

    source: str
    """A required word."""
    count: int | None = 5
    """A number or nothing."""
    rate: float = Field(default=1e-3, gt=0)
    """A positive number."""
    flag: bool = True
    """Yes or no."""
    mode: Literal["a", "b"] = "a"
    """One of two."""
    rates: list[float] = []
    """Several numbers."""
    names: list[str] = []
    """Several words."""
    table: dict[str, Any] = {}
    """Anything."""
    method: str | dict[str, Any] = "x"
    """A name or a table."""
    corpus: Inner | None = None
    """Nested with a shorthand."""
    plain: Plain = Plain()
    """Nested without."""


def parse(*words: str) -> Outer:
    found: list[Outer] = []

    @click.command(cls=SettingsCommand)
    @settings_options(Outer, arguments=("source",))
    def command(settings: Outer) -> None:
        found.append(settings)

    command.main(list(words), standalone_mode=False)
    return found[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["--count", "1e6"], {"count": 1_000_000}),
        (["--count", "none"], {"count": None}),
        (["--rate", "3e-4"], {"rate": 3e-4}),
        (["--no-flag"], {"flag": False}),
        (["--mode", "b"], {"mode": "b"}),
        (["--rates", "1e-3,2", "--rates", "3"], {"rates": [1e-3, 2.0, 3.0]}),
        (["--names", "a, b", "--names", "[c, 'd,e']"], {"names": ["a", "b", "c", "d,e"]}),
        (["--names", "1,2"], {"names": ["1", "2"]}),
        (["--table", "{a: 1, b: {c: x}}"], {"table": {"a": 1, "b": {"c": "x"}}}),
        (["--set", "table.deep.er=1e-3"], {"table": {"deep": {"er": 1e-3}}}),
        (["--method", "focus"], {"method": "focus"}),
        (["--method", "focus", "--set", "method.heat=0.5"], {"method": {"name": "focus", "heat": 0.5}}),
        (["--corpus", "text"], {"corpus": Inner(path="text")}),
        (["--corpus", "text", "--corpus.size", "9"], {"corpus": Inner(path="text", size=9)}),
        (["--set", "corpus=text", "--corpus.size", "9"], {"corpus": Inner(path="text")}),
        (["--corpus.size", "9", "--corpus.path", "t"], {"corpus": Inner(path="t", size=9)}),
        (["--plain.deep"], {"plain": Plain(deep=True)}),
        (["--set", "rate=0.5", "--rate", "0.1"], {"rate": 0.5}),
    ],
)
def test_words_become_settings(words: list[str], expected: dict[str, Any]) -> None:
    assert parse("here", *words) == Outer(source="here", **expected)


def test_a_file_gives_settings_and_options_win(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("source: file\nrate: 1e-2\ncorpus: text\nmode: b\n")
    found = parse("--config", str(file), "--rate", "0.5", "--corpus.size", "7", "--set", "mode=a")
    assert found == Outer(source="file", rate=0.5, corpus=Inner(path="text", size=7), mode="a")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("rat: 1", ["unknown key 'rat'", "own.yaml", "did you mean 'rate'?"]),
        ("rate: [", ["not valid YAML", "own.yaml, line"]),
        ("- 1", ["does not hold a table", "own.yaml"]),
        ("plain: {dep: true}", ["unknown key 'plain.dep'", "did you mean 'deep'?"]),
    ],
)
def test_mistakes_in_a_file_name_the_file(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        parse("x", "--config", str(file))
    for part in parts:
        assert part in error.value.sentence


def test_values_are_checked_by_the_settings_class() -> None:
    with pytest.raises(UserError, match=r"rate: input should be greater than 0, got -1"):
        parse("x", "--rate", "-1")
    with pytest.raises(UserError, match=r"mode: input should be 'a' or 'b', got 'c'"):
        parse("x", "--mode", "c")


def test_every_field_is_an_option_with_its_documentation() -> None:
    @click.command(cls=SettingsCommand)
    @settings_options(Outer)
    def command(settings: Outer) -> None:
        """Do."""

    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    for leaf in leaves(Outer):
        assert leaf.flag in text
        assert (leaf.field.description or "").split("\n")[0] in text
    assert "[default: 0.001]" in text
    assert "--mode a|b" in text
    assert "Settings of corpus:" in text
    assert {leaf.flag for leaf in leaves(Outer)} >= {
        "--corpus",
        "--corpus.path",
        "--corpus.size",
        "--plain.deep",
    }
    assert "--plain" not in {leaf.flag for leaf in leaves(Outer)}


def test_shorthands_are_found() -> None:
    from warmstart.corpus.settings import CorpusSettings

    assert (shorthand(Inner), shorthand(Plain), shorthand(CorpusSettings)) == ("path", None, "path")
