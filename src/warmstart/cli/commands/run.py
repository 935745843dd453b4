"""Run a recipe: a YAML file of chained operations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from warmstart.cli import shared
from warmstart.cli.comparison import read_summary
from warmstart.cli.comparison import render as render_comparison
from warmstart.cli.output import prints
from warmstart.cli.tables import table

if TYPE_CHECKING:
    from rich.console import Console


def _render(console: Console, result: dict[str, Any]) -> None:
    if "steps" in result:
        rows = [
            tuple(step.get(k, "") for k in ("step", "type", "summary", "artifact"))
            for step in result["steps"]
        ]
        table(console, ("step", "type", "what it does", "artifact"), rows)
    if "result" in result:
        render_comparison(console, result["result"])
    elif "folder" in result:
        console.print(f"→ {result['folder']}", markup=False)


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@shared.overrides
@click.option("--scale", help="Scale of the recipe: smoke, small or full.")
@click.option("--only", metavar="STEP", help="Run just this step and what it needs.")
@shared.runs
@shared.run_folder
@click.option("--dry-run", is_flag=True, help="Check the recipe and list its steps without running them.")
@prints(_render)
def command(
    recipe: Path,
    overrides: tuple[str, ...],
    scale: str | None,
    only: str | None,
    runs: Path,
    output_dir: Path | None,
    dry_run: bool,
) -> dict[str, Any]:
    """Run the steps of RECIPE (a YAML file); what is done already is taken from the cache."""
    from warmstart.recipes.runner import describe_steps, run_folder, run_recipe
    from warmstart.recipes.schema import load_recipe

    resolved = load_recipe(recipe).scaled(scale, overrides)
    if dry_run:
        return {"recipe": resolved.name, "steps": list(describe_steps(resolved))}
    folder = output_dir or run_folder(resolved, runs)
    done = run_recipe(resolved, folder, only=only)
    found: dict[str, Any] = {
        "recipe": resolved.name,
        "folder": str(folder),
        "steps": [
            row | {"artifact": str(folder / "checkpoints" / row["step"])}
            for row in describe_steps(resolved)
            if row["step"] in done
        ],
    }
    comparison = read_summary(folder)
    return found | ({"result": comparison} if comparison else {})
