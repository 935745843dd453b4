"""Step type `table`: every initialiser of new rows in several worlds."""

from __future__ import annotations

from pathlib import Path

from warmstart.foundation.files import atomic_folder
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.recipes.table import TableSettings


@operations.register("table", settings=TableSettings)
def table_step(settings: TableSettings, folder: Path, runner: Runner) -> None:
    """Compare every initialiser in every world; the artifact holds `table.json` and `report.html`."""
    from warmstart.recipes.table import run_table, write_table

    result = run_table(settings, runner)
    with atomic_folder(folder / "output", replace=True) as output:
        write_table(result, output)
