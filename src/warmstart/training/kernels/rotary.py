"""Rotary position embedding with its backward pass written out: the rotation back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`x * cos + rotate_half(x) * sin` (Su et al., arXiv 2104.09864, with the halves of Llama).

    Args:
        x: (B, H, L, D) with the last axis as two halves, the real and imaginary parts.
        cos: (B or 1, 1, L, D), its halves equal.
        sin: The same.

    Returns:
        (B, H, L, D) in the wider type of `x` and `cos`, laid out in memory as (B, L, H, D) like projections
        are.
    """
    return _Rotate.apply(x, cos, sin)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        cos, sin = cos[..., :half], sin[..., :half]
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        return _rotate(x, cos, sin, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        cos, sin = ctx.saved_tensors
        return _rotate(grads[0], cos, sin, 1).to(ctx.dtype), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    """Rotate the complex numbers of `x` by the angle (sign -1) or back (sign 1)."""
    x = x.to(torch.promote_types(x.dtype, cos.dtype))
    batch, heads, length, size = x.shape
    out = torch.empty(batch, length, heads, size, dtype=x.dtype, device=x.device).transpose(1, 2)
    half = size // 2
    real, imaginary = x[..., :half], x[..., half:]
    torch.mul(real, cos, out=out[..., :half]).addcmul_(imaginary, sin, value=sign)
    torch.mul(imaginary, cos, out=out[..., half:]).addcmul_(real, sin, value=-sign)
    return out


def around(original: Callable[..., Any]) -> Callable[..., Any]:
    """`apply_rotary_pos_emb` of the Llama families that uses `rotate` where it suits, else `original`."""

    def apply(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
    ) -> tuple[Tensor, Tensor]:
        plain = q.device.type == "cpu" and q.shape[-1] == cos.shape[-1] == k.shape[-1] and unsqueeze_dim == 1
        if not plain or cos.requires_grad:
            return original(q, k, cos, sin, unsqueeze_dim)
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return rotate(q, cos, sin), rotate(k, cos, sin)

    return apply
