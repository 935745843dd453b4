"""Step type `unwrap`: an ordinary checkpoint out of one with wrapped linear maps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.recipes.changing import change_model, counted
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class UnwrapSettings(Settings):
    """Make an ordinary checkpoint of one with wrapped linear maps, or with layers of different sizes."""

    source: str = Field(min_length=1)
    """Wrapped or per-layer checkpoint: folder, hub id, `name@revision` or `${step}`."""


@operations.register("unwrap", settings=UnwrapSettings)
def unwrap_step(settings: UnwrapSettings, folder: Path, runner: Runner) -> None:
    """Make the linear maps of a wrapped checkpoint dense again; its outputs stay.

    Layers of different sizes are filled up with zeros to those of the configuration.
    """
    from warmstart.checkpoint.forms.per_layer import narrowed
    from warmstart.shape.search.per_layer import pad_layers
    from warmstart.shape.wrap._model import unwrap_model

    def change(model: PreTrainedModel, path: Path) -> dict[str, int]:
        return counted(pad_layers(model) if narrowed(model) else unwrap_model(model))

    change_model("unwrap", settings, folder, change)
