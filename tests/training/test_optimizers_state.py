"""What the optimizers act on and what they keep of it."""

from __future__ import annotations

import optimizer_twins as twins
import pytest
import torch
import training_tiny as tiny
from optimizer_twins import LEAN
from transformers import GPT2Config, GPT2LMHeadModel

from warmstart.foundation.errors import UserError
from warmstart.training.optimizer import WHOLE, optimizers
from warmstart.training.parameters import layer_matrices, make_optimizer, parameter_groups

pytestmark = pytest.mark.usefixtures("one_thread")


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=2, n_head=2))


MATRICES = {
    "llama": 2 * 7,  # q k v o, gate up down
    "bert": 2 * 6,  # query key value dense, two of the MLP
    "t5": 2 * (4 + 2) + 2 * (4 + 4 + 2),  # relative positions are a table
    "gpt2": 2 * 4,  # fused qkv, proj, two of the MLP
}


@pytest.mark.parametrize("kind", list(MATRICES))
def test_matrices_are_the_weights_of_attention_and_mlp(kind: str) -> None:
    model = gpt2() if kind == "gpt2" else tiny.MODELS[kind]()
    found = layer_matrices(model, dict(model.named_parameters()))
    assert len(found) == MATRICES[kind]
    assert all(model.get_parameter(name).ndim == 2 for name in found)
    strange = ("norm", "embed", "wte", "wpe", "shared", "lm_head", "cls.", "bias", "ln_")
    assert not [name for name in found if any(word in name.lower() for word in strange)]


SIZES = {  # values that are kept of a weight (m, n), m <= n, without the count of updates
    "adamw": lambda m, n, r: 2 * m * n,
    "restarts": lambda m, n, r: 2 * m * n,
    "galore": lambda m, n, r: m * r + 2 * n * r,
    "fira": lambda m, n, r: m * r + 2 * n * r + 1,
    "apollo": lambda m, n, r: 2 * n * r + 1,
    "apollo-mini": lambda m, n, r: 2 * n * r + 1,
    "adafactor": lambda m, n, r: m + n,
}


def test_the_sizes_of_all_optimizers_are_known() -> None:
    assert SIZES.keys() == set(optimizers.names()) == {*LEAN, "adamw", "restarts"}
    assert {name for name in LEAN if WHOLE in optimizers.get(name).tags} == LEAN.keys()


@pytest.mark.parametrize("name", sorted(SIZES.keys() - {"restarts"}))
def test_the_planner_counts_the_same(name: str) -> None:
    """But for the one number that a limiter keeps."""
    from warmstart.shape.plan.numerics import numerics_of
    from warmstart.shape.plan.optimizers import optimizer_of
    from warmstart.shape.plan.weights import Weights

    numerics = numerics_of("float32")
    for shape in ((12, 40), (40, 12), (16, 16)):
        planned = optimizer_of(name).state_bytes(Weights(matrices=(shape,)), numerics, rank=5)
        kept = SIZES[name](min(shape), max(shape), 1 if name == "apollo-mini" else 5)
        assert kept - planned / numerics.moment in (0, 1)


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("name", list(SIZES))
def test_measured_state_is_what_the_formula_says(name: str, rank: int | None) -> None:
    """Bytes of each matrix of a model; everything else has AdamW's two moments, or Adafactor's sums."""
    model = tiny.llama(kv_heads=1)
    named = dict(model.named_parameters())
    known = "rank" in optimizers.get(name).settings.model_fields
    given = {"name": name, "rank": rank} if rank and known else name
    optimizer = make_optimizer(model, named, tiny.settings(optimizer=given))
    twins.run(named, optimizer, twins.gradients(named, 2))
    matrices = layer_matrices(model, named)
    for key, parameter in named.items():
        m, n = sorted(parameter.shape) if parameter.ndim == 2 else (0, len(parameter))
        if name == "adafactor":
            expected = m + n
        elif key in matrices:
            expected = SIZES[name](m, n, rank or (1 if name == "apollo-mini" else m // 4))
        else:
            expected = 2 * parameter.numel()
        state = {k: v for k, v in optimizer.state[parameter].items() if k not in ("step", "updates")}
        assert sum(v.numel() for v in state.values()) == expected, (
            key,
            {k: v.shape for k, v in state.items()},
        )
        assert all(v.dtype == torch.float32 for v in state.values())
        assert all(v.is_contiguous() and v._base is None for v in state.values()), (
            "memory that is kept besides"
        )


def test_adamw_is_what_it_was() -> None:
    model = tiny.llama()
    named, options = dict(model.named_parameters()), tiny.settings(weight_decay=0.2, adam_beta2=0.9)
    ours = make_optimizer(model, named, options)
    plain = torch.optim.AdamW(
        parameter_groups(model, named, 0.2), lr=3e-3, betas=(0.9, 0.9), eps=1e-8, fused=True
    )
    assert type(ours) is torch.optim.AdamW and ours.defaults == plain.defaults
    for one, other in zip(ours.param_groups, plain.param_groups, strict=True):
        assert [id(p) for p in one["params"]] == [id(p) for p in other["params"]]
        assert {k: v for k, v in one.items() if k != "params"} == {
            k: v for k, v in other.items() if k != "params"
        }


@pytest.mark.parametrize("name", list(LEAN))
def test_sharded_matrices_are_refused(name: str) -> None:
    model = tiny.llama()
    named = dict(model.named_parameters())
    named["model.layers.0.mlp.up_proj.weight"].device_mesh = "two processes"
    sentence = f"the optimizer '{name}' needs whole matrices, and FSDP2 .*set distributed: ddp"
    with pytest.raises(UserError, match=sentence):
        make_optimizer(model, named, tiny.settings(optimizer=name))
    make_optimizer(model, named, tiny.settings(optimizer="restarts"))
