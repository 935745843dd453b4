"""Any loss on logits without ever holding all of them: chunk by chunk, gradients made on the way.

As in [`linear_cross_entropy`][warmstart.evaluation.cross_entropy.linear_cross_entropy], whose loss is fixed:
places pass through the head in chunks, and since the loss is a sum over places the gradient of a chunk is
known at once. Here it comes from automatic differentiation of a function of the chunk's logits, so the
product with the head's matrix is made once, and not again in the backward pass as with checkpointing.

Shapes: N places, H width of what enters the matrix, V rows of the head, C places per chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from warmstart.evaluation.cross_entropy import chunk_size
from warmstart.evaluation.head import Head

Function = Callable[..., Tensor]
"""Logits (C, V) and rows of other tensors to the summed loss of these places."""


@torch.compiler.disable
def head_loss(
    head: Head, states: Tensor, function: Function, others: Sequence[Tensor], *, chunk: int | None = None
) -> Tensor:
    """Sum over places of a function of the logits, differentiable in states, matrix and bias.

    Args:
        head: The head, from [`head_inputs`][warmstart.evaluation.head.head_inputs].
        states: What enters its matrix, (N, H), or the logits (N, V) of a head without one.
        function: `function(logits, *rows)`, the summed loss of a chunk; it reads logits in float32 (float64
            stays), and autocast is as it is outside. It may close over what needs no gradient.
        others: Tensors of N rows that are cut into the same chunks.
        chunk: Places per chunk; chosen from V if None.
    """
    width = states.shape[-1] if head.linear is None else head.linear.out_features
    size = chunk or chunk_size(len(states), width)
    if head.linear is None:
        total = (states if states.dtype == torch.float64 else states.float()).sum() * 0.0
        for start in range(0, len(states), size):
            part = slice(start, start + size)
            logits = states[part] if states.dtype == torch.float64 else states[part].float()
            total = total + function(logits, *(x[part] for x in others))
        return total
    weight, bias = _whole(head.linear.weight), _whole(head.linear.bias)
    device = states.device.type
    compute = torch.promote_types(states.dtype, weight.dtype)
    cast = torch.is_autocast_enabled(device)
    if cast and compute != torch.float64:
        compute = torch.get_autocast_dtype(device)

    def loss(logits: Tensor, part: slice) -> Tensor:
        with torch.autocast(device, torch.get_autocast_dtype(device), enabled=cast):
            return function(logits, *(x[part] for x in others))

    with torch.autocast(device, enabled=False):
        found: Tensor = _HeadLoss.apply(
            states, weight, bias, head, loss, size, compute, torch.is_grad_enabled()
        )
    return found


class _HeadLoss(torch.autograd.Function):
    """See `head_loss`; gradients are made in `forward` and scaled in `backward`."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        head: Head,
        loss: Callable[[Tensor, slice], Tensor],
        chunk: int,
        compute: torch.dtype,
        grad_enabled: bool,
    ) -> Tensor:
        exact = torch.float64 if compute == torch.float64 else torch.float32
        needs = [grad_enabled and need for need in ctx.needs_input_grad[:3]]
        entering, matrix = states.to(compute), weight.to(compute)
        made: dict[str, Any] = {"dtype": exact, "device": states.device}
        grad_states = torch.empty(states.shape, **made) if needs[0] else None
        grad_weight = torch.zeros(weight.shape, **made) if needs[1] else None
        grad_bias = torch.zeros(len(weight), **made) if needs[2] else None
        total = torch.zeros((), **made)
        for start in range(0, len(states), chunk):
            part = slice(start, min(start + chunk, len(states)))
            output = (entering[part] @ matrix.t()).to(exact)
            if bias is not None:
                output += bias
            with torch.set_grad_enabled(any(needs)):
                output.requires_grad_(any(needs))
                value = loss(head.finished(output), part)
            total += value.detach()
            if not any(needs):
                continue
            (grad,) = torch.autograd.grad(value, output)
            if grad_bias is not None:
                grad_bias += grad.sum(0)
            grad = grad.to(compute)
            if grad_states is not None:
                grad_states[part] = grad @ matrix
            if grad_weight is not None and compute == exact:
                torch.addmm(grad_weight, grad.t(), entering[part], out=grad_weight)
            elif grad_weight is not None:
                grad_weight += grad.t() @ entering[part]
        ctx.grads = [grad_states, grad_weight, grad_bias]
        ctx.dtypes = [states.dtype, weight.dtype, None if bias is None else bias.dtype]
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        held, ctx.grads = ctx.grads, None
        if held is None:
            raise RuntimeError("a loss on logits keeps its gradients for one backward pass only")
        scaled = [
            None if grad is None else grad.mul_(grads[0]).to(dtype) for grad, dtype in zip(held, ctx.dtypes)
        ]
        return (*scaled, *[None] * 5)


def _whole(parameter: Any) -> Any:
    """A parameter that FSDP2 has sharded on its own, gathered; others as they are."""
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
