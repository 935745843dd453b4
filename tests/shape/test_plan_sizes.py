"""Parameters, operations and state of the planner against transformers and the papers' closed forms."""

from __future__ import annotations

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_jobs import MT_NLG, configs, job, llama, meta_model

from warmstart.anatomy import anatomy_of
from warmstart.anatomy.tables import tables
from warmstart.foundation.errors import UserError
from warmstart.shape.plan import gpt_operations, gpt_parameters, operations_of
from warmstart.shape.plan.numerics import NUMERICS, numerics_of
from warmstart.shape.plan.optimizers import optimizer_of, optimizers
from warmstart.shape.plan.weights import Weights, divide, tensor_sizes


@pytest.mark.parametrize("model_type", sorted(tables()))
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_parts_hold_every_parameter_once(model_type, data):
    config = transformers.AutoConfig.for_model(model_type, **data.draw(configs(model_type)))
    model = meta_model(config)
    expected = sum(p.numel() for p in model.parameters())
    anatomy = anatomy_of(config)
    assert divide(anatomy).whole.size == anatomy.parameters().total == expected


@settings(max_examples=60, deadline=None)
@given(
    layers=st.integers(1, 12),
    heads=st.sampled_from([2, 4, 16]),
    head=st.sampled_from([8, 64]),
    vocabulary=st.integers(50, 60_000),
    positions=st.integers(16, 4096),
)
def test_gpt_formulas_are_the_exact_counts(layers, heads, head, vocabulary, positions):
    width = heads * head
    config = {"model_type": "gpt2", "n_embd": width, "n_layer": layers, "n_head": heads}
    anatomy = anatomy_of({**config, "vocab_size": vocabulary, "n_positions": positions})
    formula = gpt_parameters(layers, width, vocabulary, positions)
    assert anatomy.parameters().total == pytest.approx(formula + 2 * width, rel=1e-12)
    count = operations_of(anatomy, positions)
    for recompute in (True, False):
        formula = gpt_operations(3, positions, layers, width, vocabulary, recompute=recompute)
        assert 3 * count.training("full" if recompute else "none") == pytest.approx(formula, rel=1e-12)


def test_replacing_96_by_72_alone_loses_a_quarter_of_the_head():
    """What some texts say differs from what runs by 1.5 V H per token."""
    sizes = {"batch": 1, "length": 512, "layers": 4, "hidden": 256, "vocabulary": 50_000}
    right = gpt_operations(**sizes, recompute=False)
    short = gpt_operations(**sizes) * 72 / 96
    assert right - short == pytest.approx(1.5 * 512 * 50_000 * 256)


@pytest.mark.parametrize("model_type", ["llama", "bert", "t5"])
def test_scores_are_what_grows_with_the_square(model_type):
    sizes = {"t5": {"d_model": 32, "d_kv": 8, "num_heads": 4, "num_layers": 2, "d_ff": 64}}
    usual = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}
    anatomy = anatomy_of({"model_type": model_type, **sizes.get(model_type, usual)})
    attentions = {"llama": 2, "bert": 2, "t5": 2 + 2 + 2}[model_type]
    count = operations_of(anatomy, 16)
    assert count.scores == pytest.approx(attentions * 4 * 32 * 16 * 16)
    assert count.training("selective") - count.training() == pytest.approx(count.scores)
    assert count.training("full") - count.training() == pytest.approx(count.blocks)
    assert count.forward == pytest.approx(anatomy.flops(16))


def test_the_sheet_numbers_of_mt_nlg():
    anatomy = anatomy_of(MT_NLG)
    total = anatomy.parameters().total
    assert total == pytest.approx(530e9, rel=0.02)
    assert NUMERICS["megatron"].state == 20
    big = job(MT_NLG, precision="megatron", length=2048)
    part = big.slice(1)
    state = total * (big.numerics.weight + big.numerics.gradient) + part.state_bytes(part.parts.whole)
    assert state == pytest.approx(10.6e12, rel=0.02)
    step = big.operations.training("full") * 1920
    assert step == pytest.approx(gpt_operations(1920, 2048, 105, 20480, 51200), rel=0.01)


@pytest.mark.parametrize(
    ("name", "state"), [("float32", 16), ("mixed", 16), ("megatron", 20), ("bfloat16", 8)]
)
def test_bytes_of_state_per_parameter(name, state):
    small = job(precision=name)
    whole, numerics = small.slice(1).parts.whole, small.numerics
    optimizer = small.slice(1).state_bytes(whole)
    assert whole.size * (numerics.weight + numerics.gradient) + optimizer == state * whole.size
    assert numerics.state == state


def test_optimizer_states_entry_by_entry():
    """A matrix of 6 x 10, a table of 8 x 6, 5 entries of norms; float32."""
    weights = Weights(matrices=((6, 10),), tables=((8, 6),), vectors=5)
    plain = 2 * (48 + 5)  # what lean optimizers leave to Adam
    expected = {
        "adamw": 4 * 2 * (60 + 48 + 5),
        "adamw-8bit": 2 * 60 + 2 * 4 * 60 / 256 + 4 * plain,
        "adafactor": 4 * (6 + 10 + 8 + 6 + 5),
        "lion": 4 * (60 + 48 + 5),
        "sgd": 0,
        "sgd-momentum": 4 * (60 + 48 + 5),
        "muon": 4 * (60 + plain),
        "galore": 4 * (6 * 2 + 2 * 10 * 2 + plain),
        "fira": 4 * (6 * 2 + 2 * 10 * 2 + plain),
        "apollo": 4 * (2 * 10 * 2 + plain),
        "apollo-mini": 4 * (2 * 10 + plain),
    }
    assert set(expected) == set(optimizers())
    for name, size in expected.items():
        assert optimizers()[name].state_bytes(weights, NUMERICS["float32"], 2) == pytest.approx(size), name
    # a rank beyond the short side is that side
    wide = optimizers()["galore"].state_bytes(weights, NUMERICS["float32"], 99)
    assert wide == 4 * (6 * 6 + 2 * 10 * 6 + plain)
    assert [n for n, o in optimizers().items() if o.has_rank] == ["galore", "fira", "apollo"]


def test_tensor_sizes_divide_groups_and_units():
    assert tensor_sizes(anatomy_of(llama())) == [1, 2, 4]
    assert tensor_sizes(anatomy_of(llama(num_key_value_heads=8, intermediate_size=164))) == [1, 2, 4]
    assert tensor_sizes(anatomy_of(llama(num_key_value_heads=1))) == [1]
    assert 128 in tensor_sizes(anatomy_of(MT_NLG))


def test_unknown_names_are_answered():
    with pytest.raises(UserError, match="did you mean 'adamw'"):
        optimizer_of("adam")
    with pytest.raises(UserError, match="did you mean 'bfloat16'"):
        numerics_of("bf16float")
