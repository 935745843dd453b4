"""RMSNorm with its backward pass written out: half the passes over memory of the composed one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

CLASSES = frozenset(
    f"{name}RMSNorm" for name in ("Llama", "Mistral", "Qwen2", "Qwen3", "Mixtral", "Phi3", "SmolLM3")
)
"""Layers with exactly `weight * (x * rsqrt(mean(x^2) + eps)).to(x.dtype)`; Gemma's `1 + weight` is not."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`y = weight * x / sqrt(mean(x^2) + eps)` over the last axis (Zhang and Sennrich, arXiv 1910.07467).

    Under autocast a float32 `x` gives `y` in the lower precision, rounded once: the linear layers that read
    it would round it anyway, each for itself.

    Args:
        x: (…, d) in float32, float64 or bfloat16.
        weight: (d,).
        eps: Added to the mean square.
    """
    result = torch.promote_types(x.dtype, weight.dtype)
    if torch.is_autocast_enabled("cpu") and x.dtype == torch.float32:
        result = torch.get_autocast_dtype("cpu")
    with torch.autocast("cpu", enabled=False):
        return _RMSNorm.apply(x, weight, eps, result)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, result: torch.dtype) -> Tensor:
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        length = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()  # (…, 1)
        ctx.save_for_backward(x, weight, scale)
        y = exact * scale
        if x.dtype != exact.dtype:  # a low-precision input is rounded before the weight, as transformers does
            y = y.to(x.dtype)
        return (y * weight if y.dtype != exact.dtype else y.mul_(weight)).to(result)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        x, weight, scale = ctx.saved_tensors
        exact = x.to(scale.dtype)
        grad = grads[0].to(scale.dtype)
        normal = exact * scale  # x / rms
        grad_weight = (
            (grad * normal).flatten(0, -2).sum(0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        )
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None, None
        inner = grad * weight
        along = torch.linalg.vecdot(inner, normal).unsqueeze_(-1).div_(-x.shape[-1])  # (…, 1)
        grad_x = inner.addcmul_(normal, along).mul_(scale)
        return grad_x.to(x.dtype), grad_weight, None, None


def layer_forward(layer: nn.Module, x: Tensor) -> Tensor:
    """Stands in for the `forward` of a layer in `CLASSES`."""
    if x.device.type != "cpu":
        return type(layer).forward(layer, x)
    return rms_norm(x, layer.weight, layer.variance_epsilon)  # type: ignore[arg-type]
