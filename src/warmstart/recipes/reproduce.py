"""Reproductions: a published system's claim run against its baseline, with a verdict in `results/`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from warmstart.evaluation.results import ComparisonResult
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.files import cache_home, write_atomic
from warmstart.recipes.runner import run_folder, run_recipe
from warmstart.recipes.schema import Recipe, load_recipe

SYSTEMS = Path(__file__).parent / "systems"


def results_folders() -> list[Path]:
    """Folders whose verdicts the catalogue shows; the last one is where new verdicts are written.

    `WARMSTART_RESULTS` alone if set; else the verdicts that come with the package and, where this is no
    checkout of the project, the user's own.
    """
    if own := os.environ.get("WARMSTART_RESULTS"):
        return [Path(own)]
    shipped = Path(__file__).parent / "results"
    checkout = (Path(__file__).parents[3] / "pyproject.toml").is_file()
    return [shipped] if checkout else [shipped, cache_home() / "results"]


def system_files() -> dict[str, Path]:
    """Reproduction name (`wechsel`) -> its file (`systems/023-wechsel.yaml`)."""
    return {path.stem.partition("-")[2]: path for path in sorted(SYSTEMS.glob("[0-9]*.yaml"))}


def system_recipe(name: str) -> Recipe:
    """The recipe of a system, by its name or number."""
    files = system_files()
    if name.isdigit():
        name = next((key for key, path in files.items() if int(path.stem[:3]) == int(name)), name)
    if name not in files:
        raise UserError(f"no reproduction is called {name!r}", fix=nearest(name, files))
    return load_recipe(files[name])


def reproduce(
    name: str,
    scale: str = "small",
    *,
    overrides: Iterable[str] = (),
    runs: Path = Path("runs"),
    keep: bool = True,
) -> tuple[ComparisonResult, Path]:
    """Run a system's claim at a scale.

    Args:
        name: Reproduction name or system number.
        scale: `smoke` (seconds), `small` (minutes on two cores) or `full` (one GPU).
        overrides: `step.key=value` changes; a changed run is reported but never kept as the verdict.
        runs: Folder in which the run folder is made.
        keep: Whether to write the verdict to the results folder.

    Returns:
        The result and the run folder, which holds `report.html`.
    """
    changes = list(overrides)
    base = system_recipe(name)
    recipe = base.scaled(scale, changes)
    outcome = recipe.outcome
    steps = {k: dict(v) for k, v in recipe.steps.items()}
    steps[outcome] |= {"scale": scale, "systems": recipe.systems, "title": recipe.title}
    recipe = Recipe.parse(recipe.model_dump() | {"steps": steps, "scales": {}}, where=name)
    folder = run_folder(recipe.model_copy(update={"name": f"{recipe.name}-{scale}"}), runs)
    run_recipe(recipe, folder)
    result = ComparisonResult.model_validate_json((folder / "result.json").read_text())
    if keep and not changes:
        write_verdict(result, base, scale)
    return result, folder


def write_verdict(result: ComparisonResult, recipe: Recipe, scale: str) -> Path:
    """File a result under `results/<name>.<scale>.json`, without paths of this machine."""
    plain = result.model_dump(mode="json")
    plain["name"] = recipe.name
    written = recipe.scaled(scale)
    plain["settings"] = written.model_dump(mode="json", exclude_defaults=True)
    corpus = written.steps[recipe.outcome]["corpus"]
    name = (
        corpus["path"] if isinstance(corpus, Mapping) else corpus
    )  # not the folder of the step that made it
    plain["data"] = {str(name): mark for mark in result.data.values()}
    plain["lineage"] = {}
    for arm in plain["arms"]:
        arm["checkpoint"] = ""
    path = results_folders()[-1] / f"{recipe.name}.{scale}.json"
    write_atomic(path, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
    return path
