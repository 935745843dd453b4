"""What the table of initialisers holds, and how it looks."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from warmstart.evaluation.results import Interval


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Gold(_Record):
    """How near the input rows are to the gold rows before training: whole words that are one source token.

    The mean cosine over tokens, with its interval over seeds; None where no token counts.
    """

    tokens: int
    """Tokens that count."""
    cosine: Interval | None
    """As they are."""
    centred: Interval | None
    """After the source's mean row is taken off both: zero for unrelated rows."""
    hidden: Interval | None
    """Centred, over the words that the dictionary of the cipher does not show."""


class TableRow(_Record):
    """One initialiser in one world."""

    initialiser: str
    """Its name; `scratch` reuses nothing."""
    data: str = ""
    """Evidence that it was given."""
    learning_rate: float
    """Rate chosen on another seed."""
    bpb: list[Interval]
    """Bits per byte of the test text at step 0 and at each point."""
    gold: Gold | None = None
    """Nearness to the gold rows, where they are known."""
    seconds: float | None = None
    """Time of the transplant, measured in a process of its own."""
    peak_mb: float | None = None
    """Most resident memory of that process above its libraries, in 10^6 bytes."""


class TableWorld(_Record):
    """All initialisers in one world."""

    name: str
    describe: str
    rows: list[TableRow]
    left_out: dict[str, str]
    """Initialiser -> why it did not take part."""
    tokens: list[int]
    """Training tokens at each point; equal for all rows."""
    data: dict[str, str]
    """Corpus name -> fingerprint."""


class TableResult(_Record):
    """The whole table."""

    title: str
    scale: str = "own"
    """smoke, small, full, or the name of the user's own run."""
    date: str = ""
    """ISO date on which the table was finished."""
    seeds: list[int]
    worlds: list[TableWorld]
    machine: dict[str, Any]
    """Processor, cores, versions."""


def shown(result: TableResult) -> list[dict[str, Any]]:
    """The worlds as plain tables: `{"title", "note", "columns", "rows"}`, the best at the end first."""
    return [_world(world) for world in result.worlds]


def _world(world: TableWorld) -> dict[str, Any]:
    known = any(row.gold for row in world.rows)
    columns = ["initialiser", *(f"{count:,} tokens" if count else "start" for count in world.tokens)]
    columns += (["cosine to gold", "centred", "hidden words"] if known else []) + [
        "seconds",
        "MB",
        "rate",
        "given",
    ]
    ordered = sorted(world.rows, key=lambda row: row.bpb[-1].mean)
    return {
        "title": f"{world.name}: {world.describe}" if world.describe else world.name,
        "note": [f"{name} is left out: {reason}" for name, reason in sorted(world.left_out.items())],
        "columns": columns,
        "rows": [_cells(row, known) for row in ordered],
    }


def _cells(row: TableRow, known: bool) -> list[Any]:
    gold: list[Any] = []
    if known:
        found = (row.gold.cosine, row.gold.centred, row.gold.hidden) if row.gold else (None, None, None)
        gold = [_span(value) for value in found]
    cost = [
        None if row.seconds is None else round(row.seconds, 2),
        None if row.peak_mb is None else round(row.peak_mb),
    ]
    return [row.initialiser, *map(_span, row.bpb), *gold, *cost, row.learning_rate, row.data]


def _span(value: Interval | None) -> str | None:
    """Mean and half the width of the 95 % interval."""
    if value is None:
        return None
    half = (value.high - value.low) / 2
    return f"{value.mean:.3f}" + (f" ±{half:.3f}" if len(value.per_seed) > 1 else "")
