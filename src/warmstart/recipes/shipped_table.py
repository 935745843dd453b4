"""The table that comes with the project: its recipe at a scale, filed like a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from warmstart.foundation.files import write_atomic
from warmstart.recipes.reproduce import results_folders
from warmstart.recipes.runner import run_folder, run_recipe
from warmstart.recipes.schema import Recipe, load_recipe
from warmstart.recipes.table_result import TableResult

RECIPE = Path(__file__).parent / "table.yaml"
TABLES = "tables"
"""Folder within the results folders."""


def make_table(
    scale: str, overrides: Iterable[str] = (), *, runs: Path = Path("runs"), keep: bool = True
) -> tuple[TableResult, Path]:
    """Run the recipe at a scale.

    Args:
        scale: `smoke`, `small` or `full`.
        overrides: `step.key=value` changes; a changed table is reported but never filed.
        runs: Folder in which the run folder is made.
        keep: Whether to write the table to the results folder.

    Returns:
        The table and the run folder, which holds `report.html`.
    """
    changes = list(overrides)
    recipe = load_recipe(RECIPE).scaled(scale, changes)
    steps = recipe.steps | {"table": recipe.steps["table"] | {"scale": scale}}
    recipe = Recipe.parse(
        recipe.model_dump() | {"name": f"{recipe.name}-{scale}", "steps": steps}, where=RECIPE.name
    )
    folder = run_folder(recipe, runs)
    output = run_recipe(recipe, folder)["table"]
    result = TableResult.model_validate_json((output / "table.json").read_text(encoding="utf-8"))
    if keep and not changes:
        path = results_folders()[-1] / TABLES / f"{recipe.name.removesuffix(f'-{scale}')}.{scale}.json"
        write_atomic(path, result.model_dump_json(indent=1) + "\n")
    return result, folder


def stored_tables() -> dict[str, TableResult]:
    """File name without its ending -> table, of all that were filed."""
    files = (path for folder in results_folders() for path in sorted((folder / TABLES).glob("*.json")))
    return {path.stem: TableResult.model_validate_json(path.read_text(encoding="utf-8")) for path in files}
