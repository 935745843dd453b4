"""Step type `prune`: zeros in place of the smallest weights."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.recipes.changing import change_model
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class PruneSettings(Settings):
    """Set the smallest entries of the linear maps of a checkpoint's blocks to zero; sizes stay."""

    source: str = Field(min_length=1)
    """Checkpoint, also a wrapped one: folder, hub id, `name@revision`, named source or `${step}`."""
    share: float = Field(gt=0, lt=1)
    """Share of the entries that become zero."""
    by: Literal["weight", "update"] = "weight"
    """How entries under a low-rank or sparse update are ranked: by the whole weight, or by the update."""


@operations.register(
    "prune",
    settings=PruneSettings,
    title="DSEE: Dually Sparsity-embedded Efficient Tuning of Pre-trained Language Models",
    arxiv="2111.00160",
)
def prune_step(settings: PruneSettings, folder: Path, runner: Runner) -> None:
    """Prune a checkpoint by magnitude; zeros under a frozen matrix stay when the rest is trained.

    Nothing gets smaller or faster by zeros alone: `shrink` takes whole heads and units out.
    """
    from warmstart.shape.wrap._prune import prune_model

    change_model(
        "prune", settings, folder, lambda model, path: prune_model(model, settings.share, by=settings.by)
    )
