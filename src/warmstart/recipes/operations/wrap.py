"""Step type `wrap`: give linear maps of a checkpoint other parameters than their entries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from warmstart.foundation.progress import note
from warmstart.foundation.settings import Settings
from warmstart.recipes.changing import change_model
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class WrapSettings(Settings):
    """Remake linear maps of a checkpoint's blocks: fewer parameters, or fewer that learn."""

    source: str = Field(min_length=1)
    """Checkpoint: folder, hub id, `name@revision`, named source or `${step}`."""
    method: str | dict[str, Any]
    """What a map is made of: `mpo`, `low-rank`, `sparse-low-rank`; or a table `{name: mpo, …}` with the
    method's own settings."""
    maps: list[str] = Field(default=["all"], min_length=1)
    """Which maps: `all`, `attention`, `mlp`, `queries` (all of a fused q, k, v matrix), `outputs` (what is
    added to the residual stream), or the last words of module names, such as `v_proj` or `self.value`."""
    seed: int = Field(default=0, ge=0)
    """Seed of all random numbers."""
    trust_remote_code: bool = False
    """Run code that the checkpoint brings along."""


@operations.register("wrap", settings=WrapSettings)
def wrap_step(settings: WrapSettings, folder: Path, runner: Runner) -> None:
    """Wrap linear maps of a checkpoint; training and measuring keep the form, `export` ends it.

    The lineage says how far the wrapped matrices, and the outputs on random tokens, are from the dense ones.
    """
    from warmstart.shape.wrap._model import wrap_model

    def change(model: PreTrainedModel, path: Path) -> dict[str, Any]:
        measured = wrap_model(model, settings.method, maps=settings.maps, seed=settings.seed)
        note(
            f"{measured['parameters before']:,} parameters become {measured['parameters']:,}; matrices "
            f"differ by {measured['matrix error']:.2g}, outputs by {measured['output error']:.2g}"
        )
        return measured

    change_model("wrap", settings, folder, change)
