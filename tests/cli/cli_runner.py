"""Runs the command line as the console script does, inside this process."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass

import pytest

from warmstart.cli import main


@dataclass
class Outcome:
    """What a command left."""

    code: int
    out: str
    err: str


def call(*words: str) -> Outcome:
    """Run `warmstart WORDS…`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as stop:
        main(list(words))
    assert isinstance(stop.value.code, int)
    return Outcome(stop.value.code, out.getvalue(), err.getvalue())
