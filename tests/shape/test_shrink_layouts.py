"""Families that are stored otherwise than they are held: mixtures of experts, and ViT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from anatomy_models import build, inputs_of
from shape_models import files_of, loaded, logits
from shrink_models import calibration_of

from warmstart.anatomy import anatomy_of_model
from warmstart.foundation.errors import UserError
from warmstart.shape.calibration import given
from warmstart.shape.reshape import Reshape
from warmstart.shape.shrink import ShrinkSettings, shrink

UNITS = {
    "mixtral": "intermediate_size",
    "olmoe": "intermediate_size",
    "qwen3_moe": "moe_intermediate_size",
    "vit": "intermediate_size",
}


def surgery(model: Any, to: dict[str, int], **settings: Any) -> tuple[Reshape, dict[str, torch.Tensor]]:
    anatomy, tensors = files_of(model)
    parsed = ShrinkSettings.parse({"to": to, **settings})
    text = given(calibration_of(model) if model.config.model_type not in ("vit", "deit") else None)
    return shrink(anatomy, parsed, read=tensors.__getitem__, names=tensors, calibrate=text), tensors


@pytest.mark.parametrize("variant", UNITS)
def test_units_that_nobody_reads(variant: str, tmp_path: Path) -> None:
    """Every expert loses its own."""
    model = build(variant)
    anatomy, tensors = files_of(model)
    dead = {}
    with torch.no_grad():
        for number, (name, group) in enumerate(anatomy.groups.items()):
            if name.startswith("F"):
                dead[name] = [number % 3, 4, 7]
                for member in group.members:
                    if member.role == "i":
                        view = anatomy.tensors[member.tensor].view(tensors[member.tensor])
                        view.movedim(member.dim, 0)[dead[name]] = 0.0
    size = anatomy.sizes["F"] - 3
    importance = {"name": "magnitude", "weights": "consumed"}
    before = logits(model, inputs_of(model))
    reshape, tensors = surgery(model, {UNITS[variant]: size}, importance=importance, rescale="none")
    assert {name: sorted(set(range(size + 3)) - set(reshape.maps[name].index)) for name in dead} == dead
    after = logits(loaded(reshape, tensors, variant, tmp_path), inputs_of(model))
    # the state of `stored` are views, so the model itself was changed
    assert float((before - after).abs().max() / before.abs().max()) < 1e-9


@pytest.mark.parametrize("variant", ["mixtral", "olmoe"])
def test_a_layer_of_experts_moves_as_a_whole(variant: str, tmp_path: Path) -> None:
    model = build(variant)
    with torch.no_grad():
        for name in anatomy_of_model(model).outputs("decoder", 0):
            model.get_parameter(name).zero_()
    reshape, tensors = surgery(model, {"num_hidden_layers": 1}, depth="last")
    after = logits(loaded(reshape, tensors, variant, tmp_path), inputs_of(model))
    before = logits(model, inputs_of(model))
    assert float((before - after).abs().max() / before.abs().max()) < 1e-9


def test_units_of_experts_are_scored_by_gradients_but_not_by_hooks() -> None:
    model = build("mixtral")
    reshape, _ = surgery(model, {"intermediate_size": 12}, importance="taylor")
    experts = [axis.index.tolist() for name, axis in reshape.maps.items() if name.startswith("F@decoder.0")]
    assert len(experts) == 3 and experts[0] != experts[1]
    with pytest.raises(UserError, match=r"units of experts are not seen.*magnitude or taylor"):
        surgery(model, {"intermediate_size": 12}, importance="activation")
    with pytest.raises(UserError, match=r"mixtral cannot be rescaled by calibration.*rescale: sqrt"):
        surgery(model, {"intermediate_size": 12}, importance="first", rescale="calibrated")
    with pytest.raises(UserError, match="experts cannot be cut"):
        surgery(model, {"num_local_experts": 2}, importance="first")
