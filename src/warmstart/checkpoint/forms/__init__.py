"""Forms: checkpoints whose parameters are not those of their class of transformers.

A form is one file: `forms/factorised.py` registers `factorised`. Its folders have the usual layout and a
note, `form.json`, that names the form and holds what must be known of its parameters.
`warmstart export` makes ordinary checkpoints of them.
`resolve(…).load_model()` opens them and `save_checkpoint` writes them, so that every operation that takes a
checkpoint takes these too; plain transformers refuses them, for their shapes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from warmstart.foundation.errors import UserError
from warmstart.foundation.registry import Registry

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from warmstart.foundation.tasks import Task

NOTE = "form.json"


class Form(Protocol):
    """How the parameters of a model differ from those of its class."""

    def describe(self, model: PreTrainedModel) -> dict[str, Any] | None:
        """What the note holds of a model of this form; None for any other model."""

    def prepare(self, model: PreTrainedModel, note: Mapping[str, Any]) -> None:
        """Give a model as its class makes it the form's parameters, in place; their values do not matter."""

    def plain_shapes(self, model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the state that the model would have without the form."""


forms: Registry[Form] = Registry("form", "warmstart.checkpoint.forms")


def note_of(model: PreTrainedModel) -> dict[str, Any] | None:
    """The note of a loaded model: `form`, and what that form describes; None for an ordinary one.

    Raises:
        UserError: A model of two forms, which no note can describe.
    """
    found = [(e.name, note) for e in forms if (note := e.target.describe(model)) is not None]
    if len(found) > 1:
        raise UserError(
            f"a checkpoint has one form, and the model is {' and '.join(name for name, _ in found)}",
            fix="make it an ordinary one before the next form",
        )
    return {"form": found[0][0], **found[0][1]} if found else None


def read_note(folder: Path) -> dict[str, Any] | None:
    """The note of a folder; None for an ordinary checkpoint.

    Raises:
        UserError: A note that cannot be read, or names a form that is not known here.
    """
    from warmstart.checkpoint.headers import read_json

    if not (folder / NOTE).is_file():
        return None
    note = read_json(folder / NOTE)
    forms.get(str(note.get("form")), where=folder / NOTE)
    return note


def write_note(folder: Path, note: Mapping[str, Any]) -> None:
    """Write the note into a checkpoint's folder."""
    (folder / NOTE).write_text(json.dumps(dict(note), indent=2) + "\n", encoding="utf-8")


def shapes_of(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's state as its class has them, whatever its form."""
    for entry in forms:
        if entry.target.describe(model) is not None:
            return entry.target.plain_shapes(model)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def once(model: PreTrainedModel, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each storage under one name: forms share parameters that transformers knows nothing of.

    It is the name under which transformers stores what is tied: that of the input rows, not of the head.
    """
    tied = {name.rpartition(".")[0] for name in getattr(model, "all_tied_weights_keys", None) or {}}
    seen: set[tuple[Any, ...]] = set()
    stored: dict[str, torch.Tensor] = {}
    for name in sorted(state, key=lambda name: name.rpartition(".")[0] in tied):
        tensor = state[name]
        place = (tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if place not in seen or not tensor.numel():
            stored[name] = tensor.contiguous()
        seen.add(place)
    return stored


def open_form(
    folder: Path,
    note: Mapping[str, Any],
    task: Task,
    *,
    dtype: torch.dtype | str | None = None,
    attn_implementation: str | None = None,
) -> PreTrainedModel:
    """Open a folder that has a note, in evaluation mode.

    Args:
        folder: The checkpoint.
        note: Its note.
        task: Which auto class opens it.
        dtype: Type of the weights in memory; float32 by default, `"auto"` for the stored one.
        attn_implementation: Passed on to transformers.

    Raises:
        UserError: Weights that do not fit the configuration and the note.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, GenerationConfig

    from warmstart.checkpoint.architecture import auto_class
    from warmstart.checkpoint.headers import weight_files

    stored = {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}
    kind = dtype
    if dtype == "auto":
        kind = next((t.dtype for t in stored.values() if t.is_floating_point()), torch.float32)
    chosen = getattr(torch, kind) if isinstance(kind, str) else kind or torch.float32
    options = {"attn_implementation": attn_implementation} if attn_implementation else {}
    misfit = UserError("the weights do not fit the configuration and the note of their form", where=folder)
    with torch.random.fork_rng(devices=[]):
        model: PreTrainedModel = auto_class(task).from_config(AutoConfig.from_pretrained(folder), **options)
    forms.get(str(note["form"])).target.prepare(model, note)
    torch.nn.Module.to(model, dtype=chosen)
    try:
        outcome: Any = model.load_state_dict(stored, strict=False)
    except RuntimeError as error:
        raise misfit from error
    loaded = {id(value) for name, value in model.named_parameters(remove_duplicate=False) if name in stored}
    lost = [name for name, value in model.named_parameters() if id(value) not in loaded]
    lost += [name for name, _ in model.named_buffers() if name in outcome.missing_keys]
    if lost or outcome.unexpected_keys:
        raise misfit
    if model.can_generate() and (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval()
