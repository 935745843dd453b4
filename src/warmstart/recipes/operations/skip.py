"""Step type `skip`: give the blocks of a decoder skip routers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from warmstart.foundation.progress import note
from warmstart.recipes.changing import change_model
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.shape.skip import SkipSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SkipStep(SkipSettings):
    """Let each token of a pretrained decoder go through a block or around it; training teaches which."""

    source: str = Field(min_length=1)
    """Pre-norm decoder: folder, hub id, `name@revision`, named source or `${step}`. Routers that it has are
    kept, and asked anew."""


@operations.register(
    "skip", settings=SkipStep, title="Learning to Skip for Language Modeling", arxiv="2311.15436"
)
def skip_step(settings: SkipStep, folder: Path, runner: Runner) -> None:
    """Add routers that send every token through; the step `train` teaches them what can be skipped."""
    from warmstart.shape.skip import attach

    plain = {name: getattr(settings, name) for name in SkipSettings.model_fields}

    def change(model: PreTrainedModel, path: Path) -> dict[str, Any]:
        measured = attach(model, SkipSettings.model_validate(plain), where=path)
        note(f"function {measured['function']}")
        return measured

    change_model("skip", settings, folder, change)
