"""Show what steps take of the disk, and remove those that were not used for some time."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import click

from warmstart.cli.output import prints
from warmstart.cli.tables import size, table

if TYPE_CHECKING:
    from rich.console import Console


def _render(console: Console, found: dict[str, Any]) -> None:
    rows = [
        (row["type"], row["steps"], row["unfinished"] or "", size(row["bytes"]), f"{row['idle_days']:.1f}")
        for row in found["types"]
    ]
    if rows:
        columns = ("step", "folders", "unfinished", "size", "days since used")
        table(console, columns, rows)
    verb = "removed" if found["removed"] else "in all"
    steps = "1 step" if found["steps"] == 1 else f"{found['steps']:,} steps"
    console.print(f"\n{steps}, {size(found['bytes'])} {verb}, in {found['folder']}")
    if rows and not found["removed"]:
        console.print("`--remove` removes what is listed; recipes make it again when they need it.")


@click.command()
@click.option("--older-than", type=click.FloatRange(min=0), default=0.0, metavar="DAYS",
              help="Only steps that were not used for so many days.")  # fmt: skip
@click.option("--type", "kinds", multiple=True, metavar="STEP", help="Only steps of this type (repeatable).")
@click.option("--remove", is_flag=True, help="Remove them.")
@prints(_render)
def command(older_than: float, kinds: tuple[str, ...], remove: bool) -> dict[str, Any]:
    """Show what the steps of recipes keep on the disk, or remove it."""
    from warmstart.foundation.errors import UserError, nearest
    from warmstart.foundation.files import cache_home
    from warmstart.recipes import cached

    every = list(cached.cached_steps())
    known = sorted({step.type for step in every})
    for kind in kinds:
        if every and kind not in known:
            raise UserError(f"the cache holds no step of the type {kind!r}", fix=nearest(kind, known))
    chosen = [step for step in every if step.idle_days >= older_than and (not kinds or step.type in kinds)]
    by_type = defaultdict(list)
    for step in chosen:
        by_type[step.type].append(step)
    rows = [
        {
            "type": kind,
            "steps": len(steps),
            "unfinished": sum(not step.finished for step in steps),
            "bytes": sum(step.size for step in steps),
            "idle_days": min(step.idle_days for step in steps),
        }
        for kind, steps in by_type.items()
    ]
    total = cached.remove(chosen) if remove else sum(step.size for step in chosen)
    return {
        "folder": str(cache_home() / "steps"),
        "types": sorted(rows, key=lambda row: -row["bytes"]),
        "steps": len(chosen),
        "bytes": total,
        "removed": remove,
    }
