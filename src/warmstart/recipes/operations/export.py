"""Step type `export`: an ordinary checkpoint out of one of any form."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.recipes.changing import change_model, counted
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ExportSettings(Settings):
    """Make an ordinary checkpoint, which plain transformers opens, of one that only this library does."""

    source: str = Field(min_length=1)
    """Checkpoint of any form: folder, hub id, `name@revision` or `${step}`."""
    anyway: bool = False
    """Also where no ordinary checkpoint computes the same: tokens that skip blocks no longer do."""


@operations.register("export", settings=ExportSettings)
def export_step(settings: ExportSettings, folder: Path, runner: Runner) -> None:
    """End the form of a checkpoint; its outputs stay, unless asked otherwise.

    Factorised vocabulary rows and wrapped linear maps are multiplied out, layers of different sizes are
    filled up with zeros to those of the configuration, and skip routers that never skip are taken out.
    """
    from warmstart.checkpoint.forms import note_of
    from warmstart.foundation.progress import note

    def change(model: PreTrainedModel, path: Path) -> Mapping[str, Any]:
        form = (note_of(model) or {}).get("form")
        if form is None:
            raise UserError("this is an ordinary checkpoint", where=path, fix="it opens anywhere as it is")
        measured = _plain(model, form, settings, path)
        note(f"function {measured.get('function', 'unchanged')}")
        return measured

    change_model("export", settings, folder, change)


def _plain(model: PreTrainedModel, form: str, settings: ExportSettings, path: Path) -> Mapping[str, Any]:
    """End a model's form, in place; numbers for the lineage."""
    if form == "skip":
        from warmstart.shape.skip import detach

        return detach(model, anyway=settings.anyway, where=path)
    if form == "factorised":
        from warmstart.vocabulary.factorised_model import densify_model

        return counted(densify_model(model))
    if form == "per-layer":
        from warmstart.shape.search.per_layer import pad_layers

        return counted(pad_layers(model))
    from warmstart.shape.wrap._model import unwrap_model

    return counted(unwrap_model(model))
