"""Attention over blocks of queries, as a few batched matrix products.

Torch's attention kernel for CPUs walks over small tiles; at the lengths and head sizes of small models most
of its time is not spent in matrix products, and least so in bfloat16. Here a block of C queries meets all
keys that it may see in one batched product. Causality saves the keys after the block, so about half of the
work for C much shorter than the sequence. The probabilities are kept for the backward pass: `B * H * L * (L +
C) / 2` values per layer, which is why longer sequences than `LONGEST` are left to torch.

Shapes: B sequences, H query heads, K key/value heads (G = H / K queries share one), L tokens, D per head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LONGEST = 1024
"""Tokens up to which the probabilities are kept."""


def attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float, causal: bool) -> Tensor:
    """`softmax(scale * Q K^T + mask) V`, differentiable.

    Args:
        query: (B, H, L, D).
        key: (B, K, L, D); K divides H.
        value: (B, K, L, D).
        scale: Factor on the scores.
        causal: Whether a token sees only itself and those before it.

    Returns:
        (B, L, H, D) in the type of the products: bfloat16 under autocast to it, else that of the inputs.
    """
    compute = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else value.dtype
    with torch.autocast("cpu", enabled=False):
        return _Attention.apply(query, key, value.to(compute), scale, causal)


def suits(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether `attention` can stand in for torch's kernel on these inputs."""
    return (
        query.device.type == "cpu"
        and query.shape[2] == key.shape[2] <= LONGEST
        and key.shape == value.shape
        and query.shape[1] % key.shape[1] == 0
        and query.dtype in (torch.float32, torch.float64, torch.bfloat16)
    )


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, causal: bool) -> Tensor:
        batch, heads, length, size = query.shape
        shared = key.shape[1]
        compute = value.dtype
        blocks = _blocks(length, causal)
        exact = torch.promote_types(
            compute, torch.float32
        )  # rounded scores are the largest error of bfloat16
        # (B, K, G, L, D): queries that share keys lie side by side
        q = query.to(exact).reshape(batch, shared, heads // shared, length, size)
        k, v = (
            key.to(exact).reshape(batch * shared, length, size),
            value.reshape(batch * shared, length, size),
        )
        out = torch.empty(batch, length, heads, size, dtype=compute)
        kept = []
        for start, end, seen in blocks:
            rows = q[:, :, :, start:end].reshape(batch * shared, -1, size)
            scores = torch.bmm(rows, k[:, :seen].transpose(1, 2)).mul_(scale)
            if causal:
                scores.view(-1, end - start, seen)[:, :, start:] += _future(end - start, exact)
            weights = torch.softmax(scores, dim=-1).to(compute)
            kept.append(weights)
            part = torch.bmm(weights, v[:, :seen]).view(batch, heads, end - start, size)
            out[:, start:end] = part.transpose(1, 2)
        ctx.save_for_backward(q.to(compute), k.to(compute), v, *kept)
        ctx.rest = (scale, blocks, query.dtype, key.dtype)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        q, k, v, *kept = ctx.saved_tensors
        scale, blocks, query_type, key_type = ctx.rest
        batch, shared, group, length, size = q.shape
        grad = grads[0].to(q.dtype).transpose(1, 2).reshape(q.shape)
        grad_q = torch.empty_like(q)
        grad_k = grad_v = torch.empty(0)
        # Last block first: it sees all keys, so its products are the whole gradients to which others add.
        for (start, end, seen), weights in zip(reversed(blocks), reversed(kept), strict=True):
            rows = q[:, :, :, start:end].reshape(batch * shared, -1, size)
            grad_out = grad[:, :, :, start:end].reshape(batch * shared, -1, size)
            grad_weights = torch.bmm(grad_out, v[:, :seen].transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype).mul_(scale)
            part = torch.bmm(grad_scores, k[:, :seen])
            grad_q[:, :, :, start:end] = part.view(batch, shared, group, end - start, size)
            part_k = torch.bmm(grad_scores.transpose(1, 2), rows)
            part_v = torch.bmm(weights.transpose(1, 2), grad_out)
            if seen == length:
                grad_k, grad_v = part_k, part_v
            else:
                grad_k[:, :seen] += part_k
                grad_v[:, :seen] += part_v
        heads = (batch, shared, length, size)
        return (
            grad_q.view(batch, shared * group, length, size).to(query_type),
            grad_k.view(heads).to(key_type),
            grad_v.view(heads),
            None,
            None,
        )


def _blocks(length: int, causal: bool) -> list[tuple[int, int, int]]:
    """Blocks of queries as (start, end, keys seen)."""
    if not causal:
        return [(0, length, length)]
    size = 64 if length <= 128 else 128
    return [(s, min(length, s + size), min(length, s + size)) for s in range(0, length, size)]


def _future(length: int, dtype: torch.dtype) -> Tensor:
    """0 where row i may see column j <= i, else minus infinity, (L, L)."""
    return torch.full((length, length), -math.inf, dtype=dtype).triu_(1)


def around(original: Callable[..., Any]) -> Callable[..., Any]:
    """An attention function of transformers that uses `attention` where it suits and `original` elsewhere."""

    def forward(
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        special = (
            attention_mask is not None
            or dropout > 0
            or any(kwargs.get(name) is not None for name in _SPECIAL)
        )
        if special or not suits(query, key, value):
            extra = {} if is_causal is None else {"is_causal": is_causal}
            return original(
                module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **extra, **kwargs
            )
        causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return attention(query, key, value, scale=scale, causal=bool(causal)), None

    return forward


_SPECIAL = ("position_bias", "cache", "softcap", "s_aux", "output_attentions")
