"""Importance of entries and layers against twins written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from anatomy_models import build, float64_throughout
from shrink_models import READING, calibration_of, inner_groups, reshaping, scores_of, shrunk, stored
from torch.nn import functional as F

from warmstart.anatomy import anatomy_of_model
from warmstart.foundation.errors import UserError
from warmstart.shape.calibration import Calibration, given
from warmstart.shape.importance import ImportanceContext, importances
from warmstart.shape.similarity import block_similarity

BY_HAND = {  # block, what reads the heads, what reads the units
    "llama-gqa-tied": ("model.layers.{}", "self_attn.o_proj", "mlp.down_proj"),
    "gpt2": ("transformer.h.{}", "attn.c_proj", "mlp.c_proj"),
    "gpt_neox": ("gpt_neox.layers.{}", "attention.dense", "mlp.dense_4h_to_h"),
    "bert": ("bert.encoder.layer.{}", "attention.output.dense", "output.dense"),
}


def seen(model: Any, modules: list[str]) -> dict[str, tuple[list[Any], list[Any]]]:
    """Inputs and outputs of modules on the batches of `calibration_of`, read with full logits."""
    found: dict[str, tuple[list[Any], list[Any]]] = {name: ([], []) for name in modules}

    def keep(name: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            found[name][0].append(args[0] if args else kwargs["hidden_states"])
            found[name][1].append(output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [
        model.get_submodule(name).register_forward_hook(keep(name), with_kwargs=True) for name in modules
    ]
    calibration = calibration_of(model)
    with torch.no_grad(), float64_throughout(model):
        for batch in calibration.batches:
            model(**calibration.objective.inputs(model, dict(batch)))
    for handle in handles:
        handle.remove()
    return found


def flat(states: list[Any]) -> torch.Tensor:
    return torch.cat([state.flatten(0, -2) for state in states])


@pytest.mark.parametrize("variant", BY_HAND)
def test_activation_is_the_mean_of_absolute_values(variant: str) -> None:
    model = build(variant)
    block, heads, units = BY_HAND[variant]
    names = [f"{block.format(layer)}.{name}" for layer in (0, 1) for name in (heads, units)]
    found = seen(model, [*names, block.format(0), block.format(1)])
    stack = next(iter(anatomy_of_model(model).layers))
    letters = ["F", "e", *("gr" if "llama" in variant else "h")]
    wanted = ["H", *(f"{letter}@{stack}.{layer}" for letter in letters for layer in (0, 1))]
    scores = scores_of(model, "activation", wanted)
    for layer in (0, 1):
        there = found[f"{block.format(layer)}.{units}"][0]
        np.testing.assert_allclose(scores[f"F@{stack}.{layer}"], flat(there).abs().mean(0), rtol=1e-12)
        inner = flat(found[f"{block.format(layer)}.{heads}"][0]).abs().mean(0)
        if "llama" in variant:
            inner = inner.reshape(2, 2, 6)
            np.testing.assert_allclose(scores[f"g@{stack}.{layer}"], inner.mean((1, 2)), rtol=1e-12)
            np.testing.assert_allclose(scores[f"r@{stack}.{layer}"], inner.mean((0, 2)), rtol=1e-12)
            inner = inner.flatten(0, 1)
        else:
            np.testing.assert_allclose(scores[f"h@{stack}.{layer}"], inner.reshape(4, 6).mean(1), rtol=1e-12)
        np.testing.assert_allclose(scores[f"e@{stack}.{layer}"], inner.reshape(4, 6).mean(0), rtol=1e-12)
    stream = [found[block.format(0)][0], found[block.format(0)][1], found[block.format(1)][1]]
    means = [flat(states).abs().mean(0) for states in stream]
    expected = torch.stack([mean / mean.mean() for mean in means]).mean(0)
    np.testing.assert_allclose(scores["H"], expected, rtol=1e-12)


def test_heads_that_a_whole_stack_shares_are_averaged_over_its_layers() -> None:
    """T5 adds the bias table of block 0 everywhere, so its self-attention has one order per stack."""
    model = build("t5-deep-decoder")
    names = [f"decoder.block.{layer}.layer.0.SelfAttention.o" for layer in range(3)]
    found = seen(model, names)
    expected = np.mean([flat(found[name][0]).abs().mean(0).reshape(4, 5).mean(1) for name in names], axis=0)
    scores = scores_of(model, "activation", ["h@decoder", "c@decoder.1"])
    np.testing.assert_allclose(scores["h@decoder"], expected, rtol=1e-12)
    cross = seen(model, ["decoder.block.1.layer.1.EncDecAttention.o"])
    there = next(iter(cross.values()))[0]
    np.testing.assert_allclose(scores["c@decoder.1"], flat(there).abs().mean(0).reshape(4, 5).mean(1))


@pytest.mark.parametrize("norm", [1, 2])
def test_magnitude_by_hand(norm: int) -> None:
    model = build("gpt2")
    state = {name: tensor.abs() ** norm for name, tensor in model.state_dict().items()}
    scores = scores_of(model, "magnitude", ["F@decoder.1", "h@decoder.0"], norm=norm)
    mlp = "transformer.h.1.mlp.{}"
    units = state[mlp.format("c_fc.weight")].sum(0) + state[mlp.format("c_fc.bias")]
    units += state[mlp.format("c_proj.weight")].sum(1)
    np.testing.assert_allclose(scores["F@decoder.1"], units ** (1 / norm), rtol=1e-12)
    attention = "transformer.h.0.attn.{}"
    heads = state[attention.format("c_attn.weight")].reshape(24, 3, 4, 6).sum((0, 1, 3))
    heads += state[attention.format("c_attn.bias")].reshape(3, 4, 6).sum((0, 2))
    heads += state[attention.format("c_proj.weight")].reshape(4, 6, 24).sum((1, 2))
    np.testing.assert_allclose(scores["h@decoder.0"], heads ** (1 / norm), rtol=1e-12)
    one_side = scores_of(model, "magnitude", ["F@decoder.1"], norm=norm, weights="consumed")
    expected = state[mlp.format("c_proj.weight")].sum(1) ** (1 / norm)
    np.testing.assert_allclose(one_side["F@decoder.1"], expected, rtol=1e-12)


def mean_loss(model: Any, calibration: Calibration) -> torch.Tensor:
    """Cross-entropy of full logits over the calibration text."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    with float64_throughout(model):
        for batch in calibration.batches:
            logits = model(**calibration.objective.inputs(model, dict(batch))).logits
            targets = batch["labels"]
            if calibration.objective.task == "causal":
                logits, targets = logits[:, :-1], targets[:, 1:]
            total = total + F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
            count += targets.numel()
    return total / count


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "gpt_neox", "bert", "t5"])
def test_taylor_by_hand(variant: str) -> None:
    model = build(variant)
    anatomy, tensors = stored(model)
    group = next(name for name in anatomy.groups if name.startswith("F"))
    mean_loss(model, calibration_of(model)).backward()
    gradients = {
        spec.tied_to or spec.name: model.get_parameter(name).grad
        for name, spec in anatomy.match(dict(model.named_parameters())).items()
    }
    model.zero_grad(set_to_none=True)
    scores = scores_of(model, "taylor", [group, "H"])
    assert all(parameter.grad is None for parameter in model.parameters()), "nothing is left behind"
    for name in (group, "H"):
        expected = torch.zeros(anatomy.groups[name].size, dtype=torch.float64)
        for member in anatomy.groups[name].members:
            if member.role in "oi=" and gradients.get(member.tensor) is not None:
                change = (tensors[member.tensor] * gradients[member.tensor]).abs()
                view = anatomy.tensors[member.tensor].view(change)
                expected += view.movedim(member.dim, 0).flatten(1).sum(1) if view.ndim > 1 else view
        np.testing.assert_allclose(scores[name], expected.detach(), rtol=1e-9)


@pytest.mark.parametrize("variant", READING)
def test_taylor_of_an_entry_is_what_the_loss_changes_by(variant: str) -> None:
    """Weights that read the entry are tiny, then zero: the difference of two losses, to first order."""
    model = build(variant)
    anatomy, tensors = stored(model)
    letters = "Fg" if "g" in anatomy.sizes else "Fh"
    for letter in letters:
        group = next(name for name in anatomy.groups if name.startswith(letter))
        places = [
            anatomy.tensors[member.tensor].view(tensors[member.tensor]).movedim(member.dim, 0)
            for member in anatomy.groups[group].members
            if member.role == "i" and member.tensor in tensors
        ]
        with torch.no_grad():
            for place in places:
                place.mul_(1e-4)
            scores = scores_of(model, "taylor", [group], absolute="entry")[group]
            before = mean_loss(model, calibration_of(model))
            entry = int(scores.argmax())
            for place in places:
                place[entry] = 0.0
            after = mean_loss(model, calibration_of(model))
        assert scores[entry] == pytest.approx(float((after - before).abs()), rel=5e-3)


ALONE = [e.name for e in importances if not any(f.is_required() for f in e.settings.model_fields.values())]
"""Ways that need nothing but the model and its text."""


@pytest.mark.parametrize("way", ALONE)
@pytest.mark.parametrize("variant", ["mistral", "gpt2-inner-untied", "bert-untied", "t5-v1.1"])
def test_every_way_scores_every_group_alike_each_time(variant: str, way: str) -> None:
    model = build(variant)
    anatomy = anatomy_of_model(model)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    groups = ["H", *inner_groups(anatomy)]
    first, second = scores_of(model, way, groups), scores_of(model, way, groups)
    assert first.keys() == set(groups) == second.keys()
    for name in groups:
        assert first[name].shape == (anatomy.groups[name].size,) and np.isfinite(first[name]).all()
        assert (first[name] == second[name]).all()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training and all(parameter.requires_grad for parameter in model.parameters())


def test_first_random_and_reverse() -> None:
    model = build("llama")
    index = {}
    for seed in (0, 1):
        reshape = reshaping(model, {"units": 8}, importance="random", seed=seed, text=False)
        index[seed] = reshape.maps["F@decoder.0"].index
        assert (np.diff(index[seed]) > 0).all(), "what stays keeps its order"
    assert list(index[0]) != list(index[1])
    reshape = reshaping(model, {"units": 8}, importance="first", text=False)
    assert list(reshape.maps["F@decoder.1"].index) == list(range(8))
    best = reshaping(model, {"units": 8}, importance="activation").maps["F@decoder.1"].index
    worst = reshaping(model, {"units": 12}, importance={"name": "activation", "reverse": True})
    assert sorted([*best, *worst.maps["F@decoder.1"].index]) == list(range(20))


def test_one_order_of_the_hidden_axis_and_one_of_units_per_layer() -> None:
    _, reshape = shrunk(build("llama"), {"hidden": 16, "units": 10}, importance="activation")
    assert set(reshape.maps) == {"H", "F@decoder.0", "F@decoder.1"}
    assert list(reshape.maps["F@decoder.0"].index) != list(reshape.maps["F@decoder.1"].index)


def test_bfloat16_arithmetic_sees_the_same_to_its_precision() -> None:
    model = build("llama-gqa-tied").float()
    anatomy, tensors = stored(model)
    found = {}
    for bf16 in (False, True):
        calibration = calibration_of(model)
        calibration.bf16 = bf16
        for way in ("activation", "taylor"):
            entry, own = importances.choose(way)
            groups = (anatomy.groups["F@decoder.0"],)
            rng = np.random.default_rng(0)
            context = ImportanceContext(
                anatomy, groups, tensors.__getitem__, tensors.keys(), given(calibration), rng
            )
            found[way, bf16] = entry.target(own, context)["F@decoder.0"]
    for way in ("activation", "taylor"):
        np.testing.assert_allclose(found[way, True], found[way, False], rtol=0.1)
        assert (found[way, True] != found[way, False]).any()


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "gpt2", "bert", "t5-deep-decoder"])
def test_similarity_of_blocks_by_hand(variant: str) -> None:
    model = build(variant)
    anatomy = anatomy_of_model(model)
    with float64_throughout(model):
        found = block_similarity(calibration_of(model))
    assert {stack: len(cosines) for stack, cosines in found.items()} == dict(anatomy.layers)
    for stack, cosines in found.items():
        names = [anatomy.site("block", stack=stack, layer=layer) for layer in range(len(cosines))]
        for cosine, (entered, output) in zip(cosines, seen(model, names).values()):
            x, y = flat(entered), flat(output)
            expected = ((x * y).sum(1) / x.norm(dim=1) / y.norm(dim=1)).mean()
            assert cosine == pytest.approx(float(expected), rel=1e-12)
            assert cosine < 0.999


def test_unseen_groups_go_by_their_magnitude() -> None:
    """BERT's pooler is no part of the language model, but of the checkpoint."""
    model = build("bert")
    anatomy, tensors = stored(model)
    scores = scores_of(model, "activation", ["Y"])
    assert "Y" in anatomy.groups and scores["Y"].tolist() == [0.0] * 24
    assert "bert.pooler.dense.weight" not in tensors


def test_without_text_it_says_what_is_missing() -> None:
    model = build("gpt2")
    for settings, words in (
        ({"importance": "activation"}, "the importance 'activation' needs text"),
        ({"importance": "taylor"}, "the importance 'taylor' needs text"),
        ({"importance": "first", "rescale": "calibrated"}, "rescale: calibrated needs text"),
        ({"importance": "first", "refit": "cut"}, "refit needs text"),
    ):
        with pytest.raises(UserError, match=f"^{words}.*add corpus: … to the settings"):
            reshaping(model, {"units": 8}, text=False, **settings)
    with pytest.raises(UserError, match="the depth 'cosine' needs text"):
        reshaping(model, {"layers": 1}, text=False, depth="cosine")
