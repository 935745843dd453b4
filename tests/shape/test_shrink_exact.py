"""What is cut without need of it is cut exactly, in float64, in every family."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from anatomy_models import VARIANTS, build, config_of, inputs_of, task_class
from shape_models import logits, made
from shrink_models import PRE_NORM, READING, inner_groups, named, reshaping, shrunk, stored

from warmstart.anatomy import anatomy_of_model
from warmstart.shape.grow import GrowSettings, grow
from warmstart.shape.maps import copies, merge, select
from warmstart.shape.reshape import Reshape
from warmstart.shape.selection import rotary_places
from warmstart.shape.shrink import arranged

FORCED = [name for name in READING if "gpt" in name or "bert" in name]
FREE = [name for name in READING if name not in FORCED]
DEAD = {"importance": {"name": "magnitude", "weights": "consumed"}, "rescale": "none", "text": False}


def distance(model: Any, other: Any) -> float:
    inputs = inputs_of(model)
    before, after = logits(model, inputs), logits(other, inputs)
    return float((before - after).abs().max() / before.abs().max())


def edit(model: Any, group: str, entries: Any, roles: str, value: Any = 0.0) -> None:
    """Set what members of a group hold at some entries; `mean` for that of all other entries."""
    anatomy, tensors = stored(model)
    chosen = torch.as_tensor(entries)
    with torch.no_grad():
        for member in anatomy.groups[group].members:
            if member.role in roles and member.tensor in tensors:
                view = anatomy.tensors[member.tensor].view(tensors[member.tensor])
                moved = view.movedim(member.dim, 0)
                if value == "mean":
                    others = [i for i in range(len(moved)) if i not in entries]
                    moved[chosen] = moved[others].mean(0)
                else:
                    moved[chosen] = value


def deaden_hidden(model: Any, entries: list[int]) -> None:
    """Entries of the stream that add nothing: zero before an RMSNorm, the mean before a LayerNorm."""
    anatomy = anatomy_of_model(model)
    edit(model, "H", entries, "o", 0.0 if anatomy.norm_kind == "rms" else "mean")
    if anatomy.norm_kind == "layer":
        for name, tensor in model.state_dict().items():
            if anatomy.spec(name).part == "norms" and name.endswith("bias"):
                tensor[entries] = 0.0


def test_the_families_are_all_there() -> None:
    found = {VARIANTS[name]["model_type"] for name in READING}
    assert found >= {"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "bert", "roberta", "t5", "mt5"}


@pytest.mark.parametrize("variant", READING)
def test_putting_all_axes_in_order_changes_nothing(variant: str) -> None:
    model = build(variant)
    anatomy = anatomy_of_model(model)
    rng = np.random.default_rng(0)
    groups = {name: group for name, group in anatomy.groups.items() if name not in ("V", "B", "E", "C")}
    reshape = arranged(anatomy, {name: rng.random(group.size) for name, group in groups.items()})
    assert {name[0] for name in reshape.maps} >= {"H", "F"}
    other = made(reshape, model)
    assert not torch.equal(other.get_input_embeddings().weight, model.get_input_embeddings().weight)
    assert distance(model, other) < 1e-11


@pytest.mark.parametrize("side", ["consumed", "produced"])
@pytest.mark.parametrize("variant", READING)
def test_units_that_do_nothing(variant: str, side: str) -> None:
    model = build(variant)
    dead = [0, 3, 4, 17]
    for name in inner_groups(anatomy_of_model(model)):
        if name.startswith("F"):
            edit(model, name, dead, side[0].replace("c", "i").replace("p", "o"))
    importance = {"name": "magnitude", "weights": side}
    size = anatomy_of_model(model).sizes["F"] - len(dead)
    other, reshape = shrunk(model, {"units": size}, **{**DEAD, "importance": importance})
    assert distance(model, other) < 1e-12
    axis = next(axis for name, axis in reshape.maps.items() if name.startswith("F"))
    assert not set(dead) & set(axis.index)
    refit, _ = shrunk(model, {"units": size}, rescale="none", refit="cut", importance=importance)
    assert distance(model, refit) < 1e-9, "dead units leave the other weights where they are"
    assert distance(model, shrunk(model, {"units": size}, importance="random")[0]) > 1e-3


@pytest.mark.parametrize("variant", FREE)
def test_heads_that_nobody_reads(variant: str) -> None:
    """Whole heads, or whole groups of them."""
    model = build(variant)
    anatomy = anatomy_of_model(model)
    letter = "g" if "g" in anatomy.sizes else "h"
    dead = [1] if anatomy.sizes[letter] == 2 else [0, 2]
    for name in inner_groups(anatomy):
        if name[0] in (letter, "c"):
            edit(model, name, dead, "i")
    kept = anatomy.sizes[letter] - len(dead)
    to = {"heads": kept * anatomy.sizes.get("r", 1)}
    if letter == "g":
        to["num_key_value_heads"] = kept
    other, reshape = shrunk(model, to, **DEAD)
    assert reshape.new.sizes[letter] == kept
    assert distance(model, other) < 1e-12


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "mistral", "qwen2-tied", "qwen3"])
def test_queries_inside_every_group(variant: str) -> None:
    model = build(variant)
    for name in inner_groups(anatomy_of_model(model)):
        if name.startswith("r"):
            edit(model, name, [0 if name.endswith("0") else 1], "i")
    other, reshape = shrunk(model, {"heads": 2}, **DEAD)
    assert (reshape.new.sizes["g"], reshape.new.sizes["r"]) == (2, 1)
    assert [int(reshape.maps[f"r@decoder.{layer}"].index[0]) for layer in (0, 1)] == [1, 0]
    assert distance(model, other) < 1e-12


@pytest.mark.parametrize("variant", [name for name in FREE if "qwen3" not in name])
def test_hidden_entries_that_are_always_zero(variant: str) -> None:
    model = build(variant)
    dead = [0, 1, 7, 20]
    deaden_hidden(model, dead)
    settings = {**DEAD, "importance": {"name": "magnitude", "weights": "produced"}, "norms": "compensate"}
    other, reshape = shrunk(model, {"hidden": 20}, **settings)
    assert set(range(24)) - set(reshape.maps["H"].index) == set(dead)
    assert distance(model, other) < 1e-11
    sliced, _ = shrunk(model, {"hidden": 20}, **{**settings, "norms": "slice"})
    assert distance(model, sliced) > 1e-3, "sliced norms divide by the mean square of fewer entries"


@pytest.mark.parametrize("variant", [name for name in FORCED if "gpt" in name])
def test_hidden_entries_and_heads_where_one_follows_from_the_other(variant: str) -> None:
    """Entries that equal the mean of the stream do not count for a LayerNorm, and two heads are not read."""
    model = build(variant)
    dead = [0, 1, 2, 3, 4, 5, 10, 12, 20, 21, 22, 23]
    deaden_hidden(model, dead)
    for layer in range(2):
        edit(model, f"h@decoder.{layer}", [layer, 3], "i")
    reshape = reshaping(model, {"hidden": 12}, norms="compensate", **DEAD)
    assert reshape.new.sizes["h"] == 2, "heads keep their size"
    kept = select([i for i in range(24) if i not in dead])
    by_hand = replace(reshape, maps={**reshape.maps, "H": kept})
    assert distance(model, made(by_hand, model)) < 1e-11
    assert [list(reshape.maps[f"h@decoder.{layer}"].index) for layer in (0, 1)] == [[1, 2], [0, 2]]


@pytest.mark.parametrize("variant", ["t5", "t5-v1.1", "mt5"])
def test_entries_of_heads_without_rotation(variant: str) -> None:
    model = build(variant)
    for name, group in anatomy_of_model(model).groups.items():
        if group.axes[0] in "ed":
            edit(model, name, [0, 3], "oi")
    other, _ = shrunk(model, {"d_kv": 3}, **DEAD)
    assert distance(model, other) < 1e-12


@pytest.mark.parametrize(("variant", "size"), [("llama-biases-head_dim", 2), ("qwen2-head_dim", 4)])
def test_pairs_of_rotary_heads_keep_their_frequencies(variant: str, size: int) -> None:
    model = build(variant)
    old = anatomy_of_model(model)
    new = old.resized({"e": size})
    kept = rotary_places(old, new, np.zeros(old.sizes["e"]))
    dead = [i for i in range(old.sizes["e"]) if i not in kept]
    for name in old.groups:
        if name.startswith("e"):
            edit(model, name, dead, "oi")
    other, reshape = shrunk(model, {"head_dim": size}, rescale="none", text=False)
    assert list(reshape.maps["e@decoder.0"].index) == list(kept)
    assert distance(model, other) < 1e-9  # transformers keeps frequencies in float32
    other, _ = shrunk(model, {"head_dim": size}, text=False)
    assert distance(model, other) > 1e-4, "values are multiplied, scores are as large as before"


def test_partial_rotation_keeps_pairs_and_the_best_of_the_rest() -> None:
    torch.manual_seed(0)
    ropes = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    config = config_of("gpt_neox", hidden_size=32, rope_parameters=ropes)
    model = task_class(config).from_config(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.2, 0.4)
    dead_hidden = list(range(0, 32, 2))
    deaden_hidden(model, dead_hidden)
    edit(model, "H", dead_hidden, "i")
    for layer in range(2):
        edit(model, f"e@decoder.{layer}", [1, 3, 4, 6], "oi")
    importance = {"name": "magnitude", "weights": "consumed"}
    settings = {"rescale": "none", "norms": "compensate", "importance": importance, "text": False}
    other, reshape = shrunk(model, {"hidden": 16, "heads": 4}, **settings)
    assert list(reshape.maps["e@decoder.1"].index) == [0, 2, 5, 7]
    assert distance(model, other) < 1e-9


@pytest.mark.parametrize("variant", [name for name in READING if "bert" not in name])
def test_narrowing_what_was_padded_gives_the_original_back(variant: str) -> None:
    model = build(variant)
    anatomy = anatomy_of_model(model)
    padded = GrowSettings.parse(
        {"to": named(anatomy, {"hidden": 36}), "width": {"name": "exact", "hidden": "pad"}}
    )
    wide = made(grow(anatomy, padded), model)
    settings = {"importance": "first", "rescale": "none", "norms": "compensate", "text": False}
    back, reshape = shrunk(wide, {"hidden": 24}, **settings)
    assert reshape.new.norm_eps == pytest.approx(anatomy.norm_eps, rel=1e-12)
    state = model.state_dict()
    for name, tensor in back.state_dict().items():
        norm = anatomy.spec(name).part == "norms"
        same = torch.allclose(tensor, state[name], rtol=1e-14) if norm else torch.equal(tensor, state[name])
        # heads of a family that derives them were copied, and their consumers split
        assert same or ("gpt" in variant and anatomy.spec(name).part == "attention"), name


@pytest.mark.parametrize("variant", READING)
def test_copies_are_put_together_again(variant: str) -> None:
    """Copies write the same, and the shares of what reads them add up."""
    model = build(variant)
    anatomy = anatomy_of_model(model)
    rng = np.random.default_rng(1)
    size = anatomy.sizes["F"]
    index = np.concatenate([np.arange(size), rng.integers(0, size, 9)])
    grown = grow(anatomy, GrowSettings.parse({"to": named(anatomy, {"units": size + 9})}))
    groups = [name for name in anatomy.groups if name.startswith("F")]
    wide = Reshape(anatomy, grown.new, {name: copies(index, rng=rng) for name in groups})
    wider = made(wide, model)
    back = made(Reshape(grown.new, anatomy, {name: merge(index) for name in groups}), wider)
    assert distance(wider, back) < 1e-12
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], tensor, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("variant", PRE_NORM)
def test_silent_layers_are_found_and_removed(variant: str) -> None:
    model = build(variant)
    anatomy = anatomy_of_model(model)
    to = {"layers": 5, **({"num_decoder_layers": 5} if "t5" in variant else {})}
    grown = grow(anatomy, GrowSettings.parse({"to": named(anatomy, to)}))
    deeper = made(grown, model)
    less = {"layers": 2, **({"num_decoder_layers": anatomy.layers["decoder"]} if "t5" in variant else {})}
    back, reshape = shrunk(deeper, less, depth="cosine")
    assert back.config.num_hidden_layers == 2
    for stack, layers in reshape.layers.items():
        assert not {layers.origin(i) for i in range(len(layers))} & grown.layers[stack].silent
    for name, tensor in back.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-15, atol=0)


def test_scores_that_are_divided_by_the_number_of_their_layer() -> None:
    """GPT-2 can scale by layer; a block that moves keeps its scores."""
    torch.manual_seed(0)
    config = config_of("gpt2", n_layer=3, scale_attn_by_inverse_layer_idx=True)
    model = task_class(config).from_config(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.2, 0.4)
        for name in anatomy_of_model(model).outputs("decoder", 1):
            model.get_parameter(name).zero_()
    other, reshape = shrunk(model, {"layers": 2}, depth="cosine")
    assert [reshape.layers["decoder"].origin(i) for i in (0, 1)] == [0, 2]
    assert reshape.factors == {name: {0: 2 / 3} for name in reshape.factors} and len(reshape.factors) == 2
    assert distance(model, other) < 1e-12


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("middle", [0, 1, 2, 6, 7]),
        ("first", [0, 1, 2, 3, 4]),
        ("last", [3, 4, 5, 6, 7]),
        ("interleave", [0, 1, 3, 4, 6]),
        ({"name": "chosen", "layers": [0, 2, 2, 5, 7]}, [0, 2, 2, 5, 7]),
    ],
)
def test_ways_to_leave_layers_out(way: Any, expected: list[int]) -> None:
    config = config_of("llama", num_hidden_layers=8, layer_types=["full_attention"] * 8)
    model = task_class(config).from_config(config).double().eval()
    other, reshape = shrunk(model, {"layers": 5}, depth=way, text=False)
    old, new = model.state_dict(), other.state_dict()
    for layer, origin in enumerate(expected):
        name = "model.layers.{}.mlp.up_proj.weight"
        assert torch.equal(new[name.format(layer)], old[name.format(origin)])
    assert reshape.inexact == ("the decoder has 5 of 8 layers",)


def test_positions_are_cut_from_behind() -> None:
    model = build("gpt2")
    other, reshape = shrunk(model, {"n_positions": 12}, text=False)
    assert reshape.new.sizes["P"] == 12
    assert distance(model, other) == 0.0, "short inputs do not notice"
