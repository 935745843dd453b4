"""Check this machine: versions, threads, bf16, GPU, disk, data folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from warmstart.cli.output import prints

if TYPE_CHECKING:
    from rich.console import Console


def _render(console: Console, result: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        shown.add_column(overflow="fold")
    for row in result["checks"]:
        sign = "[green]ok[/green]" if row["status"] == "ok" else "[yellow]warn[/yellow]"
        advice = f"\n[dim]→ {escape(row['advice'])}[/dim]" if row["advice"] else ""
        shown.add_row(sign, escape(row["name"]), escape(row["value"]) + advice)
    console.print(shown)


@click.command()
@click.option("--fast", is_flag=True, help="Skip the measured matrix products (about two seconds).")
@prints(_render)
def command(fast: bool) -> dict[str, Any]:
    """Check this machine and say what would slow a run down or stop it. Add its output to a bug report."""
    from warmstart.cli.machine import checks

    rows = checks(measure=not fast)
    return {"checks": rows, "warnings": sum(row["status"] == "warn" for row in rows)}
