"""Before it learns, a learned growth is the growth that is not learned, in every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from anatomy_models import build, inputs_of
from ligo_models import EVEN, PLAIN, apart, copied, learned
from shape_models import logits

from warmstart.anatomy import anatomy_of_model
from warmstart.foundation.errors import UserError
from warmstart.shape.grow_learned import LearnedGrowthSettings, grow_learned

TO = {"hidden": 48, "units": 20, "layers": 5}


RINGS = ("llama", "llama-gqa-tied", "qwen3-biases", "gpt2", "gpt_neox", "bert-untied", "t5-v1.1")
WAYS = [(variant, "ligo") for variant in PLAIN] + [(variant, "mango") for variant in RINGS]


@pytest.mark.parametrize(("variant", "way"), WAYS)
def test_copies_are_what_grow_makes(variant: str, way: str) -> None:
    growth = {"ligo": {"name": "ligo", "rows": "all"}, "mango": {"name": "mango", "rank": 2}}[way]
    small, found = learned(variant, TO, width=EVEN, growth=growth)
    assert apart(found.model, copied(small, TO, width=EVEN, depth="stack")) < 1e-14
    before = dict(found.model.named_parameters())
    for name, tensor in found.weights.differentiable(found.model).items():
        assert torch.equal(tensor, before[name])
        assert tensor.data_ptr() == before[name].data_ptr(), "a second large model"


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "gpt2", "bert", "t5"])
def test_layer_by_layer_any_way_to_widen(variant: str) -> None:
    for width in ("exact", "fpi"):
        to = {"hidden": 48, "units": 13}
        small, found = learned(variant, to, width=width, seed=5)
        assert apart(found.model, copied(small, to, width=width, seed=5)) < 1e-14


def test_appended_entries_begin_as_zeros_and_means() -> None:
    quiet = {"name": "exact", "noise": 0.0}
    for variant in ("llama", "gpt2", "bert"):
        small, found = learned(variant, {"hidden": 36}, width=quiet)
        assert apart(found.model, copied(small, {"hidden": 36}, width=quiet)) < 1e-14


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "qwen3", "gpt2", "gpt2-numbered", "gpt_neox", "t5"])
def test_the_function_is_kept_until_something_is_learned(variant: str) -> None:
    to = {"hidden": 48, "units": 13, "heads": 8, "layers": 3}
    small, found = learned(variant, to, depth="identity")
    inputs = inputs_of(small)
    before, after = logits(small, inputs), logits(found.model, inputs)
    assert float((before - after).abs().max() / before.abs().max()) < 1e-10


def test_random_columns_on_new_zeros_change_nothing_and_are_not_zero() -> None:
    small, found = learned("llama", {"hidden": 36})
    inputs = inputs_of(small)
    before, after = logits(small, inputs), logits(found.model, inputs)
    assert float((before - after).abs().max() / before.abs().max()) < 1e-10
    assert found.model.model.layers[0].mlp.up_proj.weight[:, 24:].abs().min() > 0


def test_the_source_s_choices_are_options() -> None:
    tied = {"name": "ligo", "consumers": "tied", "depth_noise": 0.03}
    small, found = learned("llama", {"hidden": 48, "layers": 4}, width=EVEN, growth=tied)
    model, old = found.model.model, small.model
    (up, mixture) = (model.layers[0].mlp.up_proj.weight, found.weights.growth.depths)
    shares = mixture["model-layers-{l}-mlp-up_proj-weight"]
    torch.testing.assert_close(shares.sum(1), torch.ones(4, dtype=torch.float64))
    assert 0 < float(shares[0, 1].detach()) < 0.03
    mixed = sum(shares[0, j] * old.layers[j].mlp.up_proj.weight for j in range(2))
    torch.testing.assert_close(up, torch.cat([mixed, mixed], 1))


@pytest.mark.parametrize(
    ("variant", "changes", "reason"),
    [
        ("llama", {"to": {"head_dim": 12}, "width": "fpi"}, "rotary"),
        ("llama", {"to": {"intermediate_size": 48}, "width": "aki"}, "layer above"),
        ("llama", {"to": {"hidden_size": 24}}, "already"),
        ("llama", {"to": {"hidden_size": 12}}, "shrink"),
        ("llama", {"to": {"num_hidden_layers": 4}, "growth": "mango", "depth": "identity"}, "mango"),
        ("llama", {"to": {"hidden_size": 48}, "growth": "liga"}, "did you mean 'ligo'"),
        ("mixtral", {"to": {"hidden_size": 48}}, "mixture of experts"),
        ("vit", {"to": {"hidden_size": 48}}, "reads no text"),
    ],
)
def test_what_cannot_be_learned_is_refused(variant: str, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        grow_learned(build(variant), LearnedGrowthSettings.parse(changes))


def test_an_untied_t5_stays_untied() -> None:
    _, found = learned("t5-v1.1", {"hidden": 48})
    assert not anatomy_of_model(found.model).tied
    assert found.model.lm_head.weight is not found.model.shared.weight
