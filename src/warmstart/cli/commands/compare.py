"""Train several starts with the same tokens and report what each one saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from warmstart.cli import shared
from warmstart.cli.comparison import read_summary, render
from warmstart.cli.output import prints
from warmstart.cli.values import apply_overrides, read_yaml
from warmstart.foundation.errors import UserError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@shared.overrides
@shared.runs
@shared.run_folder
@prints(render)
def command(file: Path, overrides: tuple[str, ...], runs: Path, output_dir: Path | None) -> dict[str, Any]:
    """Compare the arms that FILE describes: a table with `corpus`, `arms`, `train` … (see `warmstart schema
    compare`), or a recipe whose outcome is such a comparison."""
    from warmstart.recipes.runner import run_folder, run_recipe
    from warmstart.recipes.schema import Recipe

    data = read_yaml(file)
    if "steps" in data:
        recipe = Recipe.parse(data, where=file).scaled(None, overrides)
        if recipe.steps.get(recipe.outcome, {}).get("type") != "compare":
            raise UserError(
                "the outcome of this recipe is no comparison", where=file, fix="use `warmstart run` for it"
            )
    else:
        step = {"type": "compare", **apply_overrides(data, overrides)}
        recipe = Recipe.parse(
            {"name": file.stem, "title": data.get("title", ""), "steps": {"compare": step}}, where=file
        )
    folder = output_dir or run_folder(recipe, runs)
    run_recipe(recipe, folder)
    return read_summary(folder)
