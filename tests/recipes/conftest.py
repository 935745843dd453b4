"""Toy operations: they write text, count their runs, and can be told to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class ToySettings(Settings):
    source: str = ""
    """Artifact to read."""
    text: str = "x"
    """What to add."""
    fail: bool = False
    """Whether to stop half-way."""
    refuse: bool = False
    """Whether to find fault with the input."""


RUNS: list[str] = []


def _toy(settings: ToySettings, folder: Path, runner: Runner) -> None:
    """Append text to what the source holds."""
    RUNS.append(settings.text)
    if settings.refuse:
        raise UserError("the input is refused")
    (folder / "progress").write_text(
        (folder / "progress").read_text() + "+" if (folder / "progress").exists() else "+"
    )
    if settings.fail:
        raise RuntimeError("told to fail")
    before = (Path(settings.source) / "text").read_text() if settings.source else ""
    (folder / "output").mkdir()
    (folder / "output" / "text").write_text(before + settings.text)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(operations, "_entries", dict(operations._entries))
    operations.register("toy", settings=ToySettings)(_toy)
    RUNS.clear()
    return RUNS
