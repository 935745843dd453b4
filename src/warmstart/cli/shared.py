"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

overrides = click.option(
    "--set", "overrides", multiple=True, metavar="STEP.KEY=VALUE", help="Change a setting (repeatable)."
)
runs = click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where run folders are made.",
)
run_folder = click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path),
    help="Exact run folder, instead of one under --runs.",
)

keep = click.option(
    "--keep/--no-keep",
    default=True,
    help="Whether to file what was measured in the results folder; a changed run is never filed.",
)


def scale(help: str) -> Callable[[Any], Any]:
    """The option `--scale` of what can be run for a look, on two cores or on a GPU."""
    sizes = click.Choice(["smoke", "small", "full"])
    return click.option("--scale", type=sizes, default="small", show_default=True, help=help)
