"""Search the catalogue of published systems and their state here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from warmstart.cli.output import prints
from warmstart.cli.tables import table

if TYPE_CHECKING:
    from rich.console import Console

_STYLE = {"reproduced": "✓", "partly": "~", "not reproduced": "✗"}


def _render(console: Console, rows: list[dict[str, Any]]) -> None:
    shown = [
        (
            row["n"],
            row["name"],
            row["room"],
            row["state"],
            f"{_STYLE.get(row['verdict'], '')} {row['verdict']}" if row["verdict"] else "",
            row["scale"] or "",
            row["date"] or "",
        )
        for row in rows
    ]
    if shown:
        table(console, ("n", "name", "room", "state", "verdict", "scale", "date"), shown)
    counts = {state: sum(r["state"] == state for r in rows) for state in ("measured", "runs", "not built")}
    console.print(f"\n{len(rows)} systems: " + ", ".join(f"{n} {state}" for state, n in counts.items()))


@click.command()
@click.argument("words", nargs=-1)
@click.option("--room", default="", help="Only systems of this room, such as `vocabulary`.")
@click.option("--state", default="", help="Only `not built`, `runs` or `measured`.")
@prints(_render)
def command(words: tuple[str, ...], room: str, state: str) -> list[dict[str, Any]]:
    """List the published systems whose name or title has all WORDS, with their true state here."""
    from warmstart.recipes.catalogue import systems

    return [row.model_dump(mode="json") for row in systems(search=" ".join(words), room=room, state=state)]
