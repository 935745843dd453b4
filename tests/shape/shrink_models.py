"""Small models, text for them, and surgeries that shrink them in memory."""

from __future__ import annotations

from typing import Any

import torch
from anatomy_models import MIXTURES, VARIANTS, VISION, float64_throughout, inputs_of
from shape_models import made

from warmstart.anatomy import Anatomy, anatomy_of_model
from warmstart.objectives import objectives
from warmstart.shape.calibration import Calibration, given
from warmstart.shape.importance import ImportanceContext, Scores, importances
from warmstart.shape.reshape import Reshape
from warmstart.shape.shrink import ShrinkSettings, shrink

READING = [
    name
    for name, config in VARIANTS.items()
    if not name.endswith("-cross") and name not in MIXTURES and config["model_type"] not in VISION
]
PRE_NORM = [name for name in READING if "bert" not in name]
ROTARY = [name for name in READING if name.startswith(("llama", "mistral", "qwen", "gpt_neox"))]
KEYS = {
    "hidden": ("hidden_size", "n_embd", "d_model"),
    "units": ("intermediate_size", "n_inner", "d_ff"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
}


def named(anatomy: Anatomy, to: dict[str, int]) -> dict[str, int]:
    """Sizes by the keys of the family."""
    config = anatomy.table.config
    return {next((k for k in KEYS.get(role, ()) if k in config), role): size for role, size in to.items()}


def calibration_of(model: Any, batches: int = 2) -> Calibration:
    """Two batches of different length, with labels; or one of both texts."""
    whole = inputs_of(model)
    kind = {"t5": "span", "mt5": "span"}.get(model.config.model_type, "causal")
    kind = "masked" if "bert" in model.config.model_type else kind
    objective = objectives.get(kind)
    made_of = [(slice(0, 1), 7), (slice(1, 2), 5)] if batches == 2 else [(slice(None), 7)]
    found = []
    for row, length in made_of:
        batch = {name: value[row, :length] for name, value in whole.items()}
        batch["labels"] = batch.get("decoder_input_ids", batch["input_ids"]).flip(1)
        found.append(batch)
    return Calibration(model, found, objective.target(objective.settings(), None))


def stored(model: Any) -> tuple[Anatomy, dict[str, torch.Tensor]]:
    """Anatomy, and tensors by canonical name."""
    anatomy = anatomy_of_model(model)
    state = model.state_dict()
    return anatomy, {spec.tied_to or spec.name: state[name] for name, spec in anatomy.match(state).items()}


def reshaping(
    model: Any, to: dict[str, int], *, text: bool = True, batches: int = 2, **settings: Any
) -> Reshape:
    """The surgery that shrinks a model."""
    anatomy, tensors = stored(model)
    calibration = calibration_of(model, batches) if text else None
    parsed = ShrinkSettings.parse({"to": named(anatomy, to), **settings})
    with float64_throughout(model):
        return shrink(anatomy, parsed, read=tensors.__getitem__, names=tensors, calibrate=given(calibration))


def shrunk(model: Any, to: dict[str, int], **settings: Any) -> tuple[Any, Reshape]:
    """The smaller model and its surgery."""
    reshape = reshaping(model, to, **settings)
    return made(reshape, model), reshape


def scores_of(model: Any, name: str, groups: list[str], **settings: Any) -> Scores:
    """What a way says about some groups."""
    import numpy as np

    anatomy, tensors = stored(model)
    way, own = importances.choose({"name": name, **settings})
    context = ImportanceContext(
        anatomy,
        tuple(anatomy.groups[group] for group in groups),
        tensors.__getitem__,
        tensors.keys(),
        given(calibration_of(model)),
        np.random.default_rng(0),
    )
    with float64_throughout(model):
        return way.target(own, context)


def inner_groups(anatomy: Anatomy) -> list[str]:
    """Units, heads, groups of heads: what a surgery may cut layer by layer."""
    return [name for name, group in anatomy.groups.items() if group.axes[0] in "Fhgrcd"]
