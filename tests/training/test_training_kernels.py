"""The faster parts compute the functions that they replace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import training_tiny as tiny
from torch.nn import functional as F
from transformers import (
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama import modeling_llama

from warmstart.training.kernels import attention, fast_kernels, linear, rms_norm, rotary


def outputs_and_gradients(function: Any, *inputs: torch.Tensor) -> list[torch.Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*leaves)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).reshape(out.shape)
    (out * weights).sum().backward()
    return [out.detach(), *[x.grad for x in leaves]]


def error(found: list[torch.Tensor], exact: list[torch.Tensor]) -> float:
    return max(float((a.double() - b).norm() / b.norm()) for a, b in zip(found, exact, strict=True))


def heads(count: int, length: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(3, length, count, 8, dtype=torch.float64, generator=draw).transpose(1, 2).to(dtype)


def exact_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool) -> torch.Tensor:
    group = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(group, dim=1) for t in (k, v))
    scores = q @ k.transpose(-1, -2) * 0.3
    if causal:
        future = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("length", [1, 5, 64, 65, 128, 129, 300])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_equals_the_formula(length: int, causal: bool, kv_heads: int) -> None:
    q, k, v = heads(4, length), heads(kv_heads, length, seed=1), heads(kv_heads, length, seed=2)
    exact = outputs_and_gradients(lambda *x: exact_attention(*x, causal), q, k, v)
    found = outputs_and_gradients(lambda *x: attention.attention(*x, scale=0.3, causal=causal), q, k, v)
    assert error(found, exact) < 1e-13


def test_attention_in_bfloat16_is_nearer_than_torch() -> None:
    q, k, v = (heads(4, 200, seed=i).bfloat16().double() * 2 for i in range(3))
    exact = outputs_and_gradients(lambda *x: exact_attention(*x, True), q, k, v)

    def torchs(*x: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(*x, is_causal=True, scale=0.3).transpose(1, 2)

    def ours(*x: torch.Tensor) -> torch.Tensor:
        return attention.attention(*x, scale=0.3, causal=True)

    with torch.autocast("cpu", torch.bfloat16):
        low = [x.bfloat16() for x in (q, k, v)]
        theirs, mine = outputs_and_gradients(torchs, *low), outputs_and_gradients(ours, *low)
    assert mine[0].dtype == torch.bfloat16
    assert error(mine, exact) < error(theirs, exact) < 0.02


def test_rms_norm_equals_the_formula() -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, 16, dtype=torch.float64, generator=draw)
    weight = torch.rand(16, dtype=torch.float64, generator=draw)

    def formula(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return weight * x / (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt()

    exact = outputs_and_gradients(formula, x, weight)
    assert error(outputs_and_gradients(lambda a, b: rms_norm.rms_norm(a, b, 1e-3), x, weight), exact) < 1e-14
    with torch.autocast("cpu", torch.bfloat16):
        low = outputs_and_gradients(lambda a, b: rms_norm.rms_norm(a, b, 1e-3), x.float(), weight.float())
    assert low[0].dtype == torch.bfloat16 and low[1].dtype == torch.float32
    assert error(low, exact) < 0.01


@pytest.mark.parametrize("bias", [True, False])
def test_linear_equals_the_formula(bias: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(24, 17, bias=bias)
    x, parameters = torch.randn(2, 9, 24), list(layer.parameters())

    def through(forward: Any, x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        names = [name for name, _ in layer.named_parameters()]
        holder = torch.nn.Linear(24, 17, bias=bias, dtype=given[0].dtype)
        for name, value in zip(names, given, strict=True):
            delattr(holder, name)
            setattr(holder, name, value)
        return forward(holder, x)

    low = [x, *parameters]
    exact = outputs_and_gradients(
        lambda *v: through(torch.nn.Linear.forward, *v), *[v.detach().double() for v in low]
    )
    found = outputs_and_gradients(lambda *v: through(linear.layer_forward, *v), *low)
    assert all(value.dtype == torch.float32 for value in found)
    assert error(found, exact) < 5e-7


def test_rotation_equals_that_of_transformers() -> None:
    q, k = heads(4, 20), heads(2, 20, seed=1)
    angles = torch.rand(3, 20, 4, dtype=torch.float64).repeat(1, 1, 2)
    cos, sin = angles.cos(), angles.sin()
    original = modeling_llama.apply_rotary_pos_emb
    fast = rotary.around(original)
    for index in (0, 1):
        exact = outputs_and_gradients(
            lambda a, b, i=index: original(a, b, cos, sin)[i] + 0 * a.sum() * b.sum(), q, k
        )
        found = outputs_and_gradients(
            lambda a, b, i=index: fast(a, b, cos, sin)[i] + 0 * a.sum() * b.sum(), q, k
        )
        kept = [i for i, part in enumerate(exact) if part.any()]
        assert len(kept) == 2
        assert error([found[i] for i in kept], [exact[i] for i in kept]) < 1e-15


def other(config: Any, model: Any) -> Any:
    torch.manual_seed(0)
    return model(
        config(
            vocab_size=256,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            max_position_embeddings=64,
        )
    )


MODELS = {
    "llama": lambda: tiny.llama(kv_heads=1),
    "mistral": lambda: other(MistralConfig, MistralForCausalLM),
    "qwen2": lambda: other(Qwen2Config, Qwen2ForCausalLM),
    "qwen3": lambda: other(Qwen3Config, Qwen3ForCausalLM),
    "bert": lambda: tiny.bert(dropout=0.0),
    "t5": lambda: tiny.t5(dropout=0.0),
}


@pytest.mark.parametrize("kind", list(MODELS))
@pytest.mark.parametrize("padded", [False, True])
def test_models_compute_the_same(kind: str, padded: bool) -> None:
    model = MODELS[kind]()
    ids = torch.from_numpy(tiny.ArrayBlocks(4).ids.astype("int64"))
    mask = torch.ones_like(ids)
    mask[1, -5:] = 0
    extra = {"attention_mask": mask} if padded else {}

    def loss_and_gradients() -> list[torch.Tensor]:
        model.zero_grad()
        loss = model(input_ids=ids, labels=ids, **extra).loss
        loss.backward()
        return [loss.detach().double(), torch.cat([p.grad.double().flatten() for p in model.parameters()])]

    exact = loss_and_gradients()
    sdpa, rope = ALL_ATTENTION_FUNCTIONS["sdpa"], modeling_llama.apply_rotary_pos_emb
    with fast_kernels(model):
        used = count_calls()
        found = loss_and_gradients()
        calls = used()
    assert error(found, exact) < 5e-6
    assert calls["attention"] == (0 if padded or kind == "t5" else 2), "another path than expected was tested"
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is sdpa and modeling_llama.apply_rotary_pos_emb is rope
    assert not [m for m in model.modules() if "forward" in vars(m)]


def count_calls() -> Any:
    """Counts calls of `attention` until the returned function is called."""
    calls = {"attention": 0}
    original = attention.attention

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls["attention"] += 1
        return original(*args, **kwargs)

    attention.attention = counted

    def done() -> dict[str, int]:
        attention.attention = original
        return calls

    return done
