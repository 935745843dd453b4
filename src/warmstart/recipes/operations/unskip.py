"""Step type `unskip`: an ordinary checkpoint out of one with skip routers."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class UnskipSettings(Settings):
    """Take the skip routers out of a checkpoint, so that plain transformers opens it."""

    source: str = Field(min_length=1)
    """Checkpoint with skip routers: folder, hub id, `name@revision` or `${step}`."""
    anyway: bool = False
    """Also where tokens may skip: they no longer do, and the model computes something else."""


@operations.register("unskip", settings=UnskipSettings)
def unskip_step(settings: UnskipSettings, folder: Path, runner: Runner) -> None:
    """Take routers out; where they may skip tokens this is refused unless asked for."""
    from warmstart.checkpoint import Lineage, resolve, save_checkpoint
    from warmstart.foundation.progress import note
    from warmstart.shape.skip import detach

    source = resolve(settings.source)
    model, tokenizer = source.load_model(dtype="auto"), source.load_tokenizer()
    measured = detach(model, anyway=settings.anyway, where=source.path)
    note(f"function {measured['function']}")
    lineage = Lineage.of("unskip", settings, parents=[source], measured=measured)
    save_checkpoint(folder / "output", model, tokenizer, lineage=lineage, replace=True, verify=True)
