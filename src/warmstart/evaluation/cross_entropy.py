"""Cross-entropy of a linear head without ever holding all logits.

For N tokens and a vocabulary of V the usual loss keeps logits, their float32 copy, log-probabilities and
their gradient: four (N, V) arrays, most of the memory and much of the time of a small model. Here tokens pass
through the head in chunks. Because the loss is a (weighted) sum, the gradient of a chunk is known as soon as
its softmax is: `dloss/dlogits = w (softmax - onehot)`. It is pushed into the gradients of hidden states,
weight and bias at once, and only scaled in the backward pass, so the head's matrix product is never repeated.

Idea: Wijmans et al., "Cut Your Losses in Large-Vocabulary Language Models" (arXiv 2411.09009) and Hsu et al.,
"Liger Kernel" (arXiv 2410.10989); both are GPU kernels, this one is plain torch and made for CPUs as well.
Unlike theirs the gradient of the weight is summed over chunks in float32 even when the products are bfloat16.

Shapes: N tokens with a target, H hidden size, V rows of the head, C tokens per chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_CACHED, _LARGEST = 4 * 2**20, 64 * 2**20
"""Logits per chunk: what still fits a processor's cache, and what may be held at most (256 MB in float32)."""


def chunk_size(tokens: int, vocab: int) -> int:
    """Tokens per chunk C, chosen by measurement on two cores for H 256-768, V 8k-50k.

    Small chunks stay in the cache but touch the whole gradient of the weight each time, so C is at least 512
    unless the vocabulary is so large that a chunk would pass 64 million logits. Chunks are of near-equal
    size.
    """
    most = max(64, min(max(512, _CACHED // max(vocab, 1)), _LARGEST // max(vocab, 1)))
    chunks = max(1, -(-tokens // most))
    return max(1, -(-tokens // chunks))


@torch.compiler.disable  # chunks, in place: nothing that a compiler would make better
def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    token_weights: Tensor | None = None,
    softcap: float | None = None,
    chunk: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Summed negative log-likelihood of `targets` under `softmax(hidden @ weight.T + bias)`, chunk by chunk.

    Under autocast the matrix products run in its type; log-sum-exp is always taken in float32 (float64 for
    float64 input).

    Args:
        hidden: Inputs of the head, (N, H).
        weight: Rows of the head, (V, H).
        bias: (V,) or None.
        targets: Token ids, (N,) int64, all valid: select the positions with a label beforehand.
        token_weights: Factor of each token in the sum, (N,); ones if None.
        softcap: `c` when the model squashes its logits to `c tanh(logits / c)` (Gemma 2).
        chunk: Tokens per chunk; chosen from V if None.

    Returns:
        The weighted sum in nats (scalar, differentiable with respect to hidden, weight and bias) and the
        unweighted loss of each token, (N,), without gradient; both float32, or float64 for float64 input.
    """
    device = hidden.device.type
    compute = torch.promote_types(hidden.dtype, weight.dtype)
    if torch.is_autocast_enabled(device) and compute != torch.float64:
        compute = torch.get_autocast_dtype(device)
    size = chunk or chunk_size(hidden.shape[0], weight.shape[0])
    with torch.autocast(device, enabled=False):
        total, nll = _LinearCrossEntropy.apply(
            hidden, weight, bias, targets, token_weights, softcap, size, compute, torch.is_grad_enabled()
        )
    return total, nll


class _LinearCrossEntropy(torch.autograd.Function):
    """See `linear_cross_entropy`; gradients are made in `forward` and scaled in `backward`."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        token_weights: Tensor | None,
        softcap: float | None,
        chunk: int,
        compute: torch.dtype,
        grad_enabled: bool,
    ) -> tuple[Tensor, Tensor]:
        exact = torch.float64 if compute == torch.float64 else torch.float32
        tokens, (vocab, width) = hidden.shape[0], weight.shape
        needs = [grad_enabled and need for need in ctx.needs_input_grad[:3]]
        hidden_c, weight_c = hidden.to(compute), weight.to(compute)

        def empty(*shape: int, dtype: torch.dtype = exact) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=hidden.device)

        # One set of buffers for all chunks: fresh ones cost a page fault per 4 kB, more than the arithmetic.
        raw = empty(min(chunk, tokens), vocab, dtype=compute)
        logits = raw if compute == exact else empty(*raw.shape)
        probs = empty(*raw.shape)
        product = empty(vocab, width, dtype=compute) if needs[1] and compute != exact else None
        nll = empty(tokens)
        grad_hidden = empty(tokens, width, dtype=compute) if needs[0] else None
        grad_weight = empty(vocab, width) if needs[1] else None
        grad_bias = empty(vocab).zero_() if needs[2] else None
        if grad_weight is not None and not tokens:
            grad_weight.zero_()
        for start in range(0, tokens, chunk):
            part = slice(start, min(start + chunk, tokens))
            rows, goal, count = hidden_c[part], targets[part, None], part.stop - start
            x, z, p = raw[:count], logits[:count], probs[:count]
            torch.mm(rows, weight_c.t(), out=x)
            if z is not x:
                z.copy_(x)
            if bias is not None:
                z += bias
            if softcap is not None:
                z.div_(softcap).tanh_().mul_(softcap)
            torch.softmax(z, dim=-1, out=p)
            # log-sum-exp = max z - log max p: two reductions instead of a second exponential per logit.
            torch.sub(z.amax(-1) - p.amax(-1).log(), z.gather(1, goal)[:, 0], out=nll[part])
            if not any(needs):
                continue
            p.scatter_add_(1, goal, p.new_full(goal.shape, -1.0))
            if token_weights is not None:
                p *= token_weights[part, None]
            if softcap is not None:  # d(c tanh(x / c)) / dx = 1 - tanh(x / c)^2
                p *= 1 - (z / softcap).square_()
            if grad_bias is not None:
                grad_bias += p.sum(0)
            grad = p if compute == exact else x.copy_(p)
            if grad_hidden is not None:
                torch.mm(grad, weight_c, out=grad_hidden[part])
            if grad_weight is not None and product is None:
                torch.addmm(grad_weight, grad.t(), rows, beta=float(start > 0), out=grad_weight)
            elif grad_weight is not None and product is not None:
                torch.mm(grad.t(), rows, out=product)
                grad_weight.add_(product) if start else grad_weight.copy_(product)
        ctx.grads = [grad_hidden, grad_weight, grad_bias]
        ctx.dtypes = [hidden.dtype, weight.dtype, None if bias is None else bias.dtype]
        ctx.mark_non_differentiable(nll)
        total = nll.sum() if token_weights is None else (nll * token_weights).sum()
        return total, nll

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        held, ctx.grads = ctx.grads, None
        if held is None:
            raise RuntimeError("linear_cross_entropy keeps its gradients for one backward pass only")
        scaled = [
            None if grad is None else grad.mul_(grads[0]).to(dtype) for grad, dtype in zip(held, ctx.dtypes)
        ]
        return (*scaled, *[None] * 6)
