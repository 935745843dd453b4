"""The chunked loss equals the plain one: value, gradients, precision, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from warmstart.evaluation.cross_entropy import chunk_size, linear_cross_entropy


def make(
    n: int = 37, v: int = 53, h: int = 11, *, bias: bool = True, dtype: torch.dtype = torch.float64
) -> list[Any]:
    generator = torch.Generator().manual_seed(n + v)
    hidden, weight = (torch.randn(s, generator=generator).to(dtype) for s in ((n, h), (v, h)))
    row = torch.randn(v, generator=generator).to(dtype).requires_grad_() if bias else None
    targets = torch.randint(0, v, (n,), generator=generator)
    return [hidden.requires_grad_(), weight.requires_grad_(), row, targets]


def plain(hidden: Any, weight: Any, bias: Any, targets: Any, weights: Any = None, softcap: Any = None) -> Any:
    logits = F.linear(hidden, weight, bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    losses = F.cross_entropy(logits, targets, reduction="none")
    return (losses if weights is None else losses * weights).sum(), losses


def gradients(total: torch.Tensor, inputs: list[Any]) -> list[torch.Tensor]:
    return list(torch.autograd.grad(0.37 * total, [x for x in inputs[:3] if x is not None]))


@pytest.mark.parametrize("chunk", [1, 5, 36, 37, 100, None])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("weighted", [True, False])
def test_value_and_gradients_are_exact(
    chunk: int | None, bias: bool, softcap: float | None, weighted: bool
) -> None:
    inputs = make(bias=bias)
    weights = torch.linspace(-1, 2, 37, dtype=torch.float64) if weighted else None
    total, losses = linear_cross_entropy(*inputs, token_weights=weights, softcap=softcap, chunk=chunk)
    expected, each = plain(*inputs, weights, softcap)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(losses, each, rtol=1e-12, atol=1e-12)
    assert not losses.requires_grad
    for ours, theirs in zip(gradients(total, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("bf16", [False, True])
def test_single_precision(bf16: bool) -> None:
    inputs = make(200, 1000, 32, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        total, losses = linear_cross_entropy(*inputs, chunk=64)
    assert total.dtype == losses.dtype == torch.float32
    exact = [None if x is None else x.detach().double().requires_grad_() for x in inputs[:3]]
    expected, _ = plain(*exact, inputs[3])
    tolerance = 2e-2 if bf16 else 1e-5
    torch.testing.assert_close(total.double(), expected, rtol=tolerance / 10, atol=0)
    for ours, theirs in zip(gradients(total, inputs), gradients(expected, exact), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < tolerance * theirs.norm()


def test_extreme_logits_stay_finite() -> None:
    hidden, weight = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1e4], [-1e4], [0.0]])
    _, losses = linear_cross_entropy(hidden, weight, None, torch.tensor([1, 2]))
    torch.testing.assert_close(losses, torch.tensor([2e4, 1e4]))


def test_frozen_parts_get_no_gradient() -> None:
    hidden, weight, bias, targets = make()
    weight.requires_grad_(False)
    total, _ = linear_cross_entropy(hidden, weight, bias, targets)
    total.backward()
    assert weight.grad is None and bias.grad is not None and hidden.grad is not None


def test_no_targets_give_zero_loss_and_gradient() -> None:
    inputs = make(0)
    total, losses = linear_cross_entropy(*inputs)
    total.backward()
    assert total.item() == 0 and losses.shape == (0,)
    assert not inputs[1].grad.any() and not inputs[2].grad.any()


def test_second_backward_is_refused() -> None:
    total, _ = linear_cross_entropy(*make())
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass"):
        total.backward()


def test_no_full_logits() -> None:
    """No tensor that is made on the way has the size of all logits."""
    seen: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            seen.extend(
                x.numel() for x in torch.utils._pytree.tree_leaves(out) if isinstance(x, torch.Tensor)
            )
            return out

    inputs = make(4096, 600, 8, dtype=torch.float32)
    with Watch():
        total, _ = linear_cross_entropy(*inputs, chunk=256)
        total.backward()
    assert 256 * 600 in seen
    assert max(seen) < 4096 * 600 / 8


@pytest.mark.parametrize("vocab", [100, 8_000, 50_257, 250_000, 2_000_000])
@pytest.mark.parametrize("tokens", [1, 500, 4096, 100_000])
def test_chunks_are_bounded(tokens: int, vocab: int) -> None:
    size = chunk_size(tokens, vocab)
    assert 1 <= size <= max(tokens, 1)
    assert size * vocab <= max(64 * 2**20, 64 * vocab)
