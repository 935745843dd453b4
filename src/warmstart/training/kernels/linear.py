"""Float32 linear layers through oneDNN, where torch would take MKL.

Torch multiplies float32 matrices with MKL, which on AMD processors is up to a tenth slower than oneDNN, the
library that torch itself uses for bfloat16 and in compiled models. On Intel processors the two are alike, and
torch's choice stays.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@functools.cache
def worth_it() -> bool:
    """Whether this is an AMD processor and oneDNN's product is there and right."""
    try:
        if "AuthenticAMD" not in Path("/proc/cpuinfo").read_text(errors="replace"):
            return False
        x, weight = torch.eye(3), torch.arange(6.0).reshape(2, 3)
        return bool(torch.backends.mkldnn.is_available() and torch.equal(_product(x, weight), weight.t()))
    except (OSError, AttributeError, RuntimeError):
        return False


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias` by oneDNN; x (N, I), weight (O, I) in any layout."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        need_x, need_weight, need_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t()) if need_x else None,
            torch.mm(grad.t(), x) if need_weight else None,  # for long sums over tokens MKL is as fast
            grad.sum(0) if need_bias else None,
        )


def layer_forward(layer: nn.Linear, x: Tensor) -> Tensor:
    """Stands in for the `forward` of a linear layer."""
    plain = x.dtype == layer.weight.dtype == torch.float32 and x.device.type == "cpu"
    if not plain or torch.is_autocast_enabled("cpu") or x.numel() == 0:
        return nn.Linear.forward(layer, x)
    flat = x.reshape(-1, x.shape[-1])
    return _Linear.apply(flat, layer.weight, layer.bias).view(*x.shape[:-1], layer.out_features)
