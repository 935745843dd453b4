"""Step type `unskip`: an ordinary checkpoint out of one with skip routers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.recipes.changing import change_model
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class UnskipSettings(Settings):
    """Take the skip routers out of a checkpoint, so that plain transformers opens it."""

    source: str = Field(min_length=1)
    """Checkpoint with skip routers: folder, hub id, `name@revision` or `${step}`."""
    anyway: bool = False
    """Also where tokens may skip: they no longer do, and the model computes something else."""


@operations.register("unskip", settings=UnskipSettings)
def unskip_step(settings: UnskipSettings, folder: Path, runner: Runner) -> None:
    """Take routers out; where they may skip tokens this is refused unless asked for."""
    from warmstart.foundation.progress import note
    from warmstart.shape.skip import detach

    def change(model: PreTrainedModel, path: Path) -> dict[str, Any]:
        measured = detach(model, anyway=settings.anyway, where=path)
        note(f"function {measured['function']}")
        return measured

    change_model("unskip", settings, folder, change)
