"""Step types of a recipe, one file each.

An operation is `run(settings, folder, runner)`: it reads what its settings name, works inside `folder` (which
survives a kill, so it may resume there) and leaves its artifact in `folder/output`. Sub-steps go through
`runner.step`, so that they are cached and resumed like any other step. An operation tagged `pointer` leaves
nothing in a folder of its own: it returns the artifact of another step, and is asked anew each time. One
tagged `trains` takes `source`, `corpus` and training settings and leaves `training.json`, a curve: it can be
the step of a comparison's arm. One tagged `measures` takes `source` and leaves one flat JSON file of numbers:
it can be a comparison's measure. One tagged `streams` writes a checkpoint of any size without holding it in
memory; its command leaves no copy in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.foundation.registry import Registry

if TYPE_CHECKING:
    from warmstart.recipes.runner import Runner

Operation = Callable[[Any, Path, "Runner"], Path | None]
operations: Registry[Operation] = Registry("operation", "warmstart.recipes.operations")
