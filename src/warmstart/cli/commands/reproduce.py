"""Run a published system's claim against its baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from warmstart.cli import shared
from warmstart.cli.comparison import render, summary
from warmstart.cli.output import prints


@click.command()
@click.argument("name")
@shared.scale("Seconds, minutes on two cores, or one GPU.")
@shared.overrides
@shared.runs
@shared.keep
@prints(render)
def command(name: str, scale: str, overrides: tuple[str, ...], runs: Path, keep: bool) -> dict[str, Any]:
    """Run the claim of system NAME (or its number; see `warmstart systems --state runs`)."""
    from warmstart.recipes.reproduce import reproduce

    result, folder = reproduce(name, scale, overrides=overrides, runs=runs, keep=keep)
    return summary(result, folder)
