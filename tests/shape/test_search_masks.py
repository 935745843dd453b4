"""A mask computes what the cut-out sub-network computes, and what zeros in its place compute."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from anatomy_models import build, float64_throughout, inputs_of
from shape_models import logits, made
from shrink_models import stored

from warmstart.anatomy import anatomy_of_model
from warmstart.foundation.errors import UserError
from warmstart.shape.search.masked_networks import can_be_cut, surgery_of, zeroed
from warmstart.shape.search.masks import Kept, MaskSettings, MaskSpace, masked
from warmstart.shape.search.space import Range

HEADS_APART = ["llama", "llama-gqa-tied", "llama-biases-head_dim", "mistral-mha", "qwen2-head_dim", "qwen3"]
"""Heads may be fewer without being larger."""
HEADS_TIED = ["gpt2", "gpt2-inner-untied", "gpt_neox", "gpt_neox-sequential-tied", "bert", "roberta"]
ALL = [*HEADS_APART, *HEADS_TIED]
EXACT = 1e-12


def space_of(model: Any, scores: dict[str, np.ndarray] | None = None, **settings: Any) -> MaskSpace:
    return MaskSpace(
        anatomy_of_model(model), MaskSettings(**{"units": Range(min=1), **settings}), scores=scores
    )


def masked_logits(model: Any, space: MaskSpace, sizes: tuple[int, ...]) -> torch.Tensor:
    with masked(model, space, sizes):
        return logits(model, inputs_of(model))


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


def random_scores(space: MaskSpace) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {name: rng.random(space.old.groups[name].size) for pair in space.groups for name in pair}


@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize("variant", ALL)
def test_a_mask_is_the_sub_network(variant: str, ranked: bool) -> None:
    """Fewer layers, units and, where the family can have them, heads; in post-norm models as well."""
    model = build(variant)
    space = space_of(model)
    if ranked:
        space = space_of(model, random_scores(space))
    _, tensors = stored(model)
    layers, heads, units = space.full
    fewer = heads // 2 if variant in HEADS_APART else heads
    whole = logits(model, inputs_of(model))
    for sizes in [(layers, fewer, units), (layers, heads, 7), (1, heads, units), (1, fewer, 7)]:
        if sizes == space.full:
            continue
        surgery = surgery_of(space, space.kept(sizes), read=tensors.__getitem__, names=tensors)
        smaller = made(surgery, model)
        found = masked_logits(model, space, sizes)
        assert apart(found, logits(smaller, inputs_of(model))) < EXACT, sizes
        assert apart(found, whole) > 1e-3, "the mask does something"
        assert sum(p.numel() for p in smaller.parameters()) == space.parameters(sizes)
    assert torch.equal(logits(model, inputs_of(model)), whole), "masks are gone after the block"
    assert torch.equal(masked_logits(model, space, space.full), whole)


@pytest.mark.parametrize("variant", ALL)
def test_a_mask_is_zeros_in_its_place(variant: str) -> None:
    """Every layer its own number of heads and units."""
    model = build(variant)
    space = space_of(model, random_scores(space_of(model)), granularity="medium")
    anatomy, tensors = stored(model)
    sizes = space.draw(np.random.default_rng(3))
    gone = dict(space.dropped(space.kept(sizes)))
    assert gone
    other = copy.deepcopy(model)
    state = other.state_dict()
    for name, spec in anatomy.match(state).items():
        owner = spec.tied_to or spec.name
        with torch.no_grad():
            state[name].copy_(zeroed(anatomy, owner, tensors[owner], gone).reshape(state[name].shape))
    assert apart(masked_logits(model, space, sizes), logits(other, inputs_of(model))) < EXACT
    changed = [
        n for n, p in other.named_parameters() if not torch.equal(p, dict(model.named_parameters())[n])
    ]
    assert len(changed) >= 4


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "bert"])
def test_single_layers(variant: str) -> None:
    model = build(variant)
    space = space_of(model, granularity="layer")
    _, tensors = stored(model)
    assert space.smallest == (1, 0) and space.parameters((0, 0)) is None
    surgery = surgery_of(space, space.kept((0, 1)), read=tensors.__getitem__, names=tensors)
    assert surgery.layers[space.stack].origin(0) == 1
    assert apart(masked_logits(model, space, (0, 1)), logits(made(surgery, model), inputs_of(model))) < EXACT
    rng = np.random.default_rng(0)
    assert all(any(space.draw(rng)) for _ in range(50))


def test_masked_weights_get_no_gradient() -> None:
    model = build("bert")
    space = space_of(model)
    with float64_throughout(model), masked(model, space, (1, 1, 5)):
        model(**inputs_of(model)).logits.square().sum().backward()
    layer = model.bert.encoder.layer[0]
    query = layer.attention.self.query.weight.grad.reshape(4, 6, 24)
    assert query[0].any() and not query[1:].any()
    assert layer.output.dense.weight.grad[:, :5].any() and not layer.output.dense.weight.grad[:, 5:].any()
    dropped = [p.grad for p in model.bert.encoder.layer[1].parameters()]
    assert all(grad is None or not grad.any() for grad in dropped)


def test_the_spaces_of_the_source() -> None:
    model = build("bert")
    small, medium = space_of(model), space_of(model, granularity="medium", heads=[1, 2, 4])
    assert small.keys == ("layers", "heads", "units") and small.count == 2 * 4 * 20
    assert medium.keys == ("heads.0", "units.0", "heads.1", "units.1") and medium.full == (4, 20, 4, 20)
    assert medium.kept((1, 5, 2, 6)) == Kept((1, 2), (5, 6), (0, 1))
    assert small.kept((1, 2, 3)) == Kept((2, 2), (3, 3), (0,))
    assert small.smallest == (1, 1, 1) and medium.smallest == (1, 1, 1, 1)
    default = MaskSpace(anatomy_of_model(model), MaskSettings())
    assert default.values[2] == (2, 5, 7, 10, 12, 15, 17, 20)
    total = sum(p.numel() for p in model.parameters())
    assert all(space.parameters(space.full) == total for space in (small, medium, default))


def test_what_has_no_masks_is_refused() -> None:
    for variant, words in (("t5", "one stack"), ("mixtral", "without experts"), ("vit", "one stack")):
        with pytest.raises(UserError, match=words):
            MaskSpace(anatomy_of_model(build(variant)), MaskSettings())
    with pytest.raises(UserError, match="heads is 4 in the model, and the space has 5"):
        space_of(build("bert"), heads=[5])
    model = build("bert")
    space = space_of(model)
    _, tensors = stored(model)
    with pytest.raises(
        UserError,
        match=r"bert with fewer heads would have head dimension 12 instead of 6.*export: per-layer or masked",
    ):
        surgery_of(space, space.kept((2, 2, 20)), read=tensors.__getitem__, names=tensors)
    assert not can_be_cut(space, space.kept((2, 2, 20))) and can_be_cut(space, space.kept((2, 4, 7)))
    medium = space_of(model, granularity="medium")
    assert not can_be_cut(medium, medium.kept((4, 5, 4, 6)))
    with pytest.raises(
        UserError, match=r"from 5 to 6 units, which no configuration says.*export: per-layer or masked"
    ):
        surgery_of(medium, medium.kept((4, 5, 4, 6)), read=tensors.__getitem__, names=tensors)
