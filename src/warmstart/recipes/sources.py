"""Named sources: checkpoints that our own recipes train, made on first use and cached.

`tiny-en` in place of a checkpoint means the outcome of `sources/tiny-en.yaml`. A folder of that name wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from warmstart.checkpoint.sources import register_source_resolver
from warmstart.foundation.errors import UserError, nearest
from warmstart.recipes.schema import Recipe, load_recipe, parse_step, substitute

if TYPE_CHECKING:
    from warmstart.recipes.runner import Runner

FOLDER = Path(__file__).parent / "sources"


def source_names() -> list[str]:
    """Names of the sources that can be trained here."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def source_recipe(name: str) -> Recipe:
    """The recipe behind a named source."""
    if name not in source_names():
        raise UserError(f"no source is called {name!r}", fix=nearest(name, source_names()))
    return load_recipe(FOLDER / f"{name}.yaml")


def build_source(name: str, runner: Runner, overrides: Sequence[str] = ()) -> Path:
    """Artifact of a named source, trained now if the cache does not hold it."""
    recipe = source_recipe(name).scaled(None, overrides)
    recipe.validate_steps()
    done: dict[str, str] = {}
    for step in recipe.order(recipe.outcome):
        kind, settings = parse_step(substitute(recipe.steps[step], done), where=f"{name}: {step}")
        done[step] = str(runner.step(kind, settings, name=f"source {name}: {step}"))
    return Path(done[recipe.outcome])


def is_named_source(name: str) -> bool:
    """Whether `name` stands for a source of ours; an existing folder of that name wins."""
    return name in source_names() and not Path(name).exists()


@register_source_resolver
def find_source(name: str) -> Path | None:
    """Folder of a named source for `checkpoint.resolve`, which knows them once this module is imported."""
    from warmstart.recipes.runner import Runner

    return build_source(name, Runner()) if is_named_source(name) else None
