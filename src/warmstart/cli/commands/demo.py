"""Show the whole job on this machine: no network, no data, a few minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from warmstart.cli.comparison import render, summary
from warmstart.cli.options import SettingsCommand, settings_options
from warmstart.cli.output import prints
from warmstart.recipes.demo import DemoSettings

if TYPE_CHECKING:
    from rich.console import Console


def _render(console: Console, result: dict[str, Any]) -> None:
    render(console, result)
    console.print(f"{result['seconds']:.0f} seconds in all.")


@click.command(cls=SettingsCommand)
@settings_options(DemoSettings)
@prints(_render)
def command(settings: DemoSettings) -> dict[str, Any]:
    """Warm-start a small model for new text in several ways and show what each saves.

    Without options it needs neither network nor data: a small English source is trained once and kept, then
    given a new tokenizer for Python code. With --source and --corpus it does the same with yours.
    """
    from warmstart.recipes.demo import run_demo

    result, folder, seconds = run_demo(settings)
    return {"seconds": round(seconds, 1), **summary(result, folder)}
