"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

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
