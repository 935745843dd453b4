"""Step type `merge`: one checkpoint from several of the same shape."""

from __future__ import annotations

from pathlib import Path

from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.shape.merging import MergeSettings


class MergeStep(MergeSettings):
    """Merge checkpoints of one shape and one tokenizer, tensor by tensor; nothing is trained."""


@operations.register("merge", settings=MergeStep, tags=("streams",))
def merge_step(settings: MergeStep, folder: Path, runner: Runner) -> None:
    """Merge checkpoints; tokenizer and configuration are those of the base, or of the first model."""
    from warmstart.checkpoint import Lineage, resolve
    from warmstart.shape.merging import merge

    models = [resolve(table.model) for table in settings.tables]
    base = resolve(settings.base_model) if settings.base_model else None
    parents = [*([("base", base)] if base is not None else []), *(("model", model) for model in models)]
    lineage = Lineage.of("merge", settings, parents=parents, seeds={"seed": settings.seed})
    merge(settings, models, base, folder / "output", lineage=lineage, replace=True)
