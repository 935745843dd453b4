"""Loaded models: linear maps wrapped, measured against the dense ones, and made dense again."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from warmstart.checkpoint.forms import note_of
from warmstart.checkpoint.forms._wrapped import places, put
from warmstart.foundation.errors import UserError
from warmstart.shape.wrap import WrapContext, wraps
from warmstart.shape.wrap._choose import choose

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def wrap_model(
    model: PreTrainedModel, way: str | Mapping[str, Any], *, maps: Sequence[str] = ("all",), seed: int = 0
) -> dict[str, float]:
    """Wrap linear maps of a loaded model, in place.

    Args:
        model: An ordinary model of a family that has a table.
        way: Name of the way, or a table `{name: …, …}` with its settings.
        maps: See [`choose`][warmstart.shape.wrap._choose.choose].
        seed: Of all random numbers.

    Returns:
        `parameters before` and `parameters`; how many of the wrapped maps' learn; `matrix error`, the root of
        the summed squared differences of the wrapped matrices over that of their squares; `output error`,
        the largest difference of the model's outputs on random tokens over the largest output.

    Raises:
        UserError: A model that is wrapped or factorised already, maps that it does not have, or what the
            way refuses.
    """
    import torch

    if (note := note_of(model)) is not None:
        raise UserError(
            f"the model is of the form {note['form']} already", fix="make it an ordinary one first"
        )
    entry, own = wraps.choose(way, where="way")
    context = WrapContext(choose(model, maps), torch.Generator().manual_seed(seed))
    before, outputs = parameters(model), sample_outputs(model)
    made = entry.target(own, context)
    error = size = 0.0
    with torch.no_grad():
        for place in context.places:
            dense = place.matrix()
            error += float((made[place.name].matrix().double() - dense).square().sum())
            size += float(dense.square().sum())
    for name, module in made.items():
        put(model, name, module)
    change = (sample_outputs(model) - outputs).abs().max() / outputs.abs().max().clamp_min(1e-12)
    return {
        "parameters before": before,
        "parameters": parameters(model),
        "wrapped parameters that learn": learning(model),
        "matrix error": math.sqrt(error / size) if size else 0.0,
        "output error": float(change),
    }


def unwrap_model(model: PreTrainedModel) -> PreTrainedModel:
    """Multiply out every wrapped map of a model, in place: an ordinary model with the same outputs.

    Raises:
        UserError: A model without wrapped maps.
    """
    found = list(places(model))
    if not found:
        raise UserError("the model has no wrapped linear maps", fix="it opens anywhere as it is")
    for name, module in found:
        put(model, name, module.dense())
    return model


def parameters(model: PreTrainedModel) -> int:
    """Parameters of a model, what is shared once, with those that are frozen in wrapped maps."""
    kept = sum(buffer.numel() for _, m in places(model) for n, buffer in m.named_buffers() if n == "base")
    return kept + sum(parameter.numel() for parameter in model.parameters())


def learning(model: PreTrainedModel) -> int:
    """Parameters that learn of the wrapped maps, biases not counted."""
    own = {p for _, module in places(model) for name, p in module.named_parameters() if name != "bias"}
    return sum(parameter.numel() for parameter in own)


def sample_outputs(model: PreTrainedModel) -> torch.Tensor:
    """Logits (states, of a model without a head) on 4 sequences of 8 tokens drawn from a fixed seed."""
    import torch

    rows: Any = model.get_input_embeddings()
    ids = torch.randint(0, rows.num_embeddings, (4, 8), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids.to(model.device)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    training = model.training
    with torch.no_grad():
        outputs = model.eval()(**inputs)
    model.train(training)
    found: torch.Tensor = getattr(outputs, "logits", outputs[0])
    return found.double().cpu()
