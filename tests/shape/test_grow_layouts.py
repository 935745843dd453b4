"""Mixtures of experts and ViT, which are stored otherwise than they are held, grow from their files."""

from __future__ import annotations

from pathlib import Path

import pytest
from anatomy_models import build, inputs_of
from shape_models import files_of, loaded, logits

from warmstart.foundation.errors import UserError
from warmstart.shape.grow import GrowSettings, grow

TO = {
    "units": {
        "mixtral": {"intermediate_size": 30},
        "olmoe": {"intermediate_size": 30},
        "qwen2_moe": {"moe_intermediate_size": 17, "shared_expert_intermediate_size": 40},
        "qwen3_moe": {"moe_intermediate_size": 17},
        "vit": {"intermediate_size": 30},
    },
    "layers": {
        "mixtral": {"num_hidden_layers": 4},
        "olmoe": {"num_hidden_layers": 3},
        "qwen2_moe": {"num_hidden_layers": 3},
        "qwen3_moe": {"num_hidden_layers": 5},
        "vit": {"num_hidden_layers": 4},
    },
    "hidden": {
        "mixtral": {"hidden_size": 48, "num_attention_heads": 8, "num_key_value_heads": 4},
        "qwen3_moe": {"hidden_size": 48},
        "qwen2_moe": {"hidden_size": 48, "num_attention_heads": 8},
        "vit": {"hidden_size": 48, "num_attention_heads": 8},
    },
}
CASES = [(axis, variant) for axis, variants in TO.items() for variant in variants]


@pytest.mark.parametrize(("axis", "variant"), CASES)
def test_growth_from_files_is_exact(axis: str, variant: str, tmp_path: Path) -> None:
    model = build(variant)
    anatomy, tensors = files_of(model)
    reshape = grow(anatomy, GrowSettings.parse({"to": TO[axis][variant]}))
    before = logits(model, inputs_of(model))
    after = logits(loaded(reshape, tensors, variant, tmp_path), inputs_of(model))
    assert float((before - after).abs().max() / before.abs().max()) < 1e-9
    assert reshape.inexact == ()


@pytest.mark.parametrize(("groups", "exact"), [(2, True), (3, False)])
def test_a_norm_over_all_heads_sees_whether_some_are_copied_more_often(
    groups: int, exact: bool, tmp_path: Path
) -> None:
    model = build("olmoe")
    anatomy, tensors = files_of(model)
    to = {"hidden_size": 72, "num_attention_heads": 12, "num_key_value_heads": groups}
    reshape = grow(anatomy, GrowSettings.parse({"to": to}))
    before = logits(model, inputs_of(model))
    after = logits(loaded(reshape, tensors, "olmoe", tmp_path), inputs_of(model))
    assert (float((before - after).abs().max() / before.abs().max()) < 1e-9) is exact
    assert [reason for reason in reshape.inexact if "a norm runs over copies" in reason] == (
        [] if exact else list(reshape.inexact)
    )


def test_numbers_of_layers_follow_the_layers_and_other_patterns_are_refused(tmp_path: Path) -> None:
    anatomy, _ = files_of(build("qwen2_moe"))
    reshape = grow(anatomy, GrowSettings.parse({"to": {"num_hidden_layers": 5}, "depth": "interleave"}))
    origins = [reshape.layers["decoder"].origin(layer) for layer in range(5)]
    assert reshape.new.config["mlp_only_layers"] == [i for i, origin in enumerate(origins) if origin == 1]
    anatomy, _ = files_of(build("qwen2_moe-every-second-unbiased"))
    with pytest.raises(UserError, match="would become layer 1, which is of another kind"):
        grow(anatomy, GrowSettings.parse({"to": {"num_hidden_layers": 4}}))
