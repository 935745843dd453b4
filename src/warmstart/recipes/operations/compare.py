"""Step type `compare`: several arms at equal tokens, with savings, claims and a report."""

from __future__ import annotations

from pathlib import Path

from warmstart.foundation.files import atomic_folder
from warmstart.recipes.compare import CompareSettings, run_comparison, write_result
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


@operations.register("compare", settings=CompareSettings)
def compare(settings: CompareSettings, folder: Path, runner: Runner) -> None:
    """Train every arm with the same tokens and steps and report what each saved against the baseline."""
    result = run_comparison(settings.title or "comparison", settings, runner)
    with atomic_folder(folder / "output", replace=True) as output:
        write_result(result, output)
