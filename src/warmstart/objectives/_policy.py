"""The loss of answers that a model has written itself: what they earned, and how far the model has gone.

Shapes: N prompts, S answers to each, K places of all answers together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from warmstart.evaluation.head import head_inputs, head_logits
from warmstart.evaluation.sampling import answered
from warmstart.objectives._divergence import log_softmax
from warmstart.objectives._head_loss import head_loss


def advantages(rewards: Tensor, kind: Literal["leave-one-out", "group"]) -> Tensor:
    """How much better than the other answers to its prompt each answer is, (N, S).

    - `leave-one-out`: `r_i - mean of the other S - 1`. What is taken away does not depend on answer i, so the
      gradient stays unbiased.
    - `group`: `(r_i - mean) / (deviation + 1e-6)` over all S, the deviation that of the S themselves.

    Args:
        rewards: (N, S), S at least 2.
        kind: Which.
    """
    apart = rewards - rewards.mean(-1, keepdim=True)
    if kind == "leave-one-out":
        return apart * (rewards.shape[-1] / (rewards.shape[-1] - 1))
    return apart / (rewards.std(-1, correction=0, keepdim=True) + 1e-6)


def policy_loss(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    answers: Tensor,
    weights: Tensor,
    *,
    reference: nn.Module | None = None,
    kl_weight: float = 0.0,
    temperature: float = 1.0,
    tokens: int | None = None,
) -> Tensor:
    """`sum_i b sum_t KL(p(. | y_<t) || reference)`, with the gradient of that `- sum_i A_i log p(y_i)`.

    The policy gradient has no loss of which it is the gradient, so its part is worth nothing.

    Args:
        model: In the mode in which it wrote the answers.
        prompts: N prompts.
        answers: (N * S, T) token ids, filled up with -1.
        weights: A, (N * S,).
        reference: Frozen model; needed where `kl_weight` is above 0.
        kl_weight: b.
        temperature: Of the sampling; all probabilities are those at this temperature.
        tokens: Rows of the head that are tokens, V by default.
    """
    rows = answered(prompts, answers)
    inputs = {"input_ids": rows.ids}
    head, states = head_inputs(model, inputs, rows.where)
    others = [rows.tokens, weights[rows.rows]]
    theirs = None
    if kl_weight and reference is not None:
        with torch.no_grad():
            theirs, said = head_inputs(reference, inputs, rows.where)
        others.append(said)

    def part(logits: Tensor, token: Tensor, weight: Tensor, *said: Tensor) -> Tensor:
        goal = None
        if theirs is not None:
            with torch.no_grad():
                goal = log_softmax(head_logits(theirs, said[0])[:, :tokens], temperature)
        value: Tensor = _Places.apply(logits[:, :tokens], token, weight, goal, kl_weight, temperature)
        return value

    return head_loss(head, states, part, others)


class _Places(torch.autograd.Function):
    """`b sum KL(p || q)`, whose gradient has that of `- sum A log p(token)` added to it.

    With p of logits z / T: `d KL / dz = p (log p - log q - KL) / T` and `d log p(t) / dz = (onehot - p) / T`,
    so one pass over the vocabulary makes both.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        token: Tensor,
        weight: Tensor,
        goal: Tensor | None,
        kl_weight: float,
        temperature: float,
    ) -> Tensor:
        log_p = log_softmax(logits, temperature)
        lowest = torch.finfo(log_p.dtype).min / 8  # so that 0 log 0 is 0
        weight = weight.to(log_p)[:, None]
        if goal is None:
            total, grad = log_p.new_zeros(()), log_p.exp_().mul_(weight)
        else:
            p = log_p.clamp_(min=lowest).exp()
            apart = log_p.sub_(goal.to(log_p).clamp_(min=lowest))
            divergence = torch.linalg.vecdot(p, apart)[:, None]
            total = kl_weight * divergence.sum()
            grad = apart.sub_(divergence).mul_(kl_weight).add_(weight).mul_(p)
        grad.scatter_add_(1, token[:, None], -weight)
        ctx.grad = grad.div_(temperature).to(logits.dtype)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        held, ctx.grad = ctx.grad, None
        return (held.mul_(grads[0]), *[None] * 5)
