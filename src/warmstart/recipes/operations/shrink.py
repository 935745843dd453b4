"""Step type `shrink`: a smaller model out of a larger one."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.shape.shrink import ShrinkSettings


class ShrinkStep(ShrinkSettings):
    """Make a model narrower or shallower out of its most important parts; nothing is trained."""

    source: str = Field(min_length=1)
    """Checkpoint to shrink: folder, hub id, `name@revision`, named source or `${step}`."""
    corpus: CorpusSettings | None = None
    """Text by which parts are judged; `magnitude`, `first` and `random` need none."""
    calibration_tokens: int = Field(default=65536, ge=1)
    """Tokens of the corpus's train split that the model reads for it, drawn by the seed."""
    block_size: int = Field(default=512, ge=2)
    """Tokens per block, at most; the model may allow fewer."""
    per_device_calibration_batch_size: int = Field(default=8, ge=1)
    """Blocks that are read at a time."""
    bf16: bool = False
    """Read the text in bfloat16 arithmetic."""
    max_shard_size: str = "5GB"
    """Largest file of the new checkpoint."""
    trust_remote_code: bool = False
    """Run code that the checkpoint brings along."""


@operations.register("shrink", settings=ShrinkStep, tags=("streams",))
def shrink_step(settings: ShrinkStep, folder: Path, runner: Runner) -> None:
    """Shrink a checkpoint; the weights that stay are written tensor by tensor.

    The model is loaded only if something reads text.
    """
    from warmstart.checkpoint import resolve
    from warmstart.recipes.calibration_text import CalibrationText
    from warmstart.shape.shrink import shrink
    from warmstart.shape.stored import Stored, write_reshaped

    source = resolve(settings.source, trust_remote_code=settings.trust_remote_code)
    stored = Stored(source)
    plain = {name: getattr(settings, name) for name in ShrinkSettings.model_fields}
    text = CalibrationText(settings, source)
    reshape = shrink(
        stored.anatomy,
        ShrinkSettings.model_validate(plain),
        read=stored.read,
        names=stored.names.keys(),
        calibrate=text.calibrate,
    )
    data, text.calibration = text.data, None  # the model is not needed any more
    write_reshaped(stored, reshape, folder / "output", operation="shrink", settings=settings, data=data)
