"""Step type `grow`: a larger model from a smaller one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.settings import AddedLater
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.shape.grow import GrowSettings


class GrowStep(GrowSettings):
    """Make a model wider or deeper, tensor by tensor; nothing is trained."""

    source: str = Field(min_length=1)
    """Checkpoint to grow: folder, hub id, `name@revision`, named source or `${step}`."""
    corpus: Annotated[CorpusSettings | None, AddedLater()] = None
    """Text by which a span of blocks is chosen, for `depth: {name: span, start: most-similar}`."""
    calibration_tokens: Annotated[int, AddedLater()] = Field(default=65536, ge=1)
    """Tokens of the corpus's train split that the model reads for it, drawn by the seed."""
    block_size: Annotated[int, AddedLater()] = Field(default=512, ge=2)
    """Tokens per block, at most; the model may allow fewer."""
    per_device_calibration_batch_size: Annotated[int, AddedLater()] = Field(default=8, ge=1)
    """Blocks that are read at a time."""
    bf16: Annotated[bool, AddedLater()] = False
    """Read the text in bfloat16 arithmetic."""
    max_shard_size: str = "5GB"
    """Largest file of the new checkpoint."""
    trust_remote_code: bool = False
    """Run code that the checkpoint brings along."""


@operations.register("grow", settings=GrowStep, tags=("streams",))
def grow_step(settings: GrowStep, folder: Path, runner: Runner) -> None:
    """Grow a checkpoint; its lineage says whether the function stayed what it was, and if not, why."""
    from warmstart.checkpoint import resolve
    from warmstart.recipes.calibration_text import CalibrationText
    from warmstart.shape.grow import grow
    from warmstart.shape.stored import Stored, write_reshaped

    source = resolve(settings.source, trust_remote_code=settings.trust_remote_code)
    stored, text = Stored(source), CalibrationText(settings, source, where="grow")
    plain = {name: getattr(settings, name) for name in GrowSettings.model_fields}
    reshape = grow(stored.anatomy, GrowSettings.model_validate(plain), calibrate=text.calibrate)
    data, text.calibration = text.data, None  # the model is not needed any more
    write_reshaped(stored, reshape, folder / "output", operation="grow", settings=settings, data=data)
