"""`warmstart vocab advise` and `warmstart vocab table`: which initialiser is best, here and in general."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from warmstart.cli import shared
from warmstart.cli.options import SettingsCommand, settings_options
from warmstart.cli.output import prints
from warmstart.cli.tables import table
from warmstart.recipes.advise import AdviseSettings

if TYPE_CHECKING:
    from rich.console import Console


def add_to(group: click.Group) -> None:
    """Put both commands into a group."""
    group.add_command(advise_command)
    group.add_command(table_command)


def _render_advice(console: Console, found: dict[str, Any]) -> None:
    rows = [
        (
            candidate["initialiser"],
            f"{candidate['start']:.3f}",
            f"{candidate['final']['mean']:.3f}",
            f"{candidate['behind']['mean']:.3f}" + (" (tied)" if candidate["tied"] else ""),
            candidate["seconds"],
            candidate["learning_rate"],
            candidate["given"],
        )
        for candidate in found["candidates"]
    ]
    columns = ("initialiser", "start", f"{found['tokens']:,} tokens", "behind", "seconds", "rate", "given")
    table(console, columns, rows, title="Bits per byte of held-out text")
    for name, reason in found["left_out"].items():
        console.print(f"  not tried: {name}: {reason}", markup=False)
    console.print(f"\n{found['sentence']}", markup=False, style="bold")
    console.print(f"{found['command']}", markup=False, soft_wrap=True)


@click.command("advise", cls=SettingsCommand)
@settings_options(AdviseSettings, arguments=("source",))
@prints(_render_advice)
def advise_command(settings: AdviseSettings) -> dict[str, Any]:
    """Measure the cheap initialisers for SOURCE on a slice of a text and recommend one.

    \b
    Example: warmstart vocab advise gpt2 --corpus text-de/ --dictionary en-de.tsv --budget-seconds 600
    """
    from warmstart.recipes.advise import advise
    from warmstart.recipes.runner import Runner

    return advise(settings, Runner()).model_dump(mode="json")


def _render_table(console: Console, found: dict[str, Any]) -> None:
    from warmstart.recipes.table_result import TableResult, shown

    for world in shown(TableResult.model_validate(found["table"])):
        table(console, world["columns"], world["rows"], title=world["title"])
        for line in world["note"]:
            console.print(f"  {line}", markup=False)
        console.print()
    console.print(f"Report: {found['report']}", markup=False, soft_wrap=True)


@click.command("table")
@shared.scale("Minutes for a look, hours on two cores, or one GPU.")
@shared.overrides
@shared.runs
@shared.keep
@prints(_render_table)
def table_command(scale: str, overrides: tuple[str, ...], runs: Path, keep: bool) -> dict[str, Any]:
    """Compare every initialiser in four worlds: another language, code, one of several, and a word cipher.

    Single ones: --set 'table.initialisers=[focus, wechsel]'. What is done already is taken from the cache.
    """
    from warmstart.recipes.shipped_table import make_table

    found, folder = make_table(scale, overrides, runs=runs, keep=keep)
    shown = found.model_dump(mode="json")
    return {"table": shown, "folder": str(folder), "report": str(folder / "report.html")}
