"""The loss of answers that a model has written itself: what they earned, and how far the model has gone.

Shapes: N prompts, S answers to each, K places of all answers together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from warmstart.evaluation.head import head_inputs, head_logits
from warmstart.evaluation.sampling import answered
from warmstart.objectives._divergence import between, log_softmax
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
        log_p = log_softmax(logits[:, :tokens], temperature)
        chosen = log_p.gather(-1, token[:, None])[:, 0]
        value = -(weight.to(chosen) * (chosen - chosen.detach())).sum()
        if theirs is None:
            return value
        with torch.no_grad():
            goal = log_softmax(head_logits(theirs, said[0])[:, :tokens], temperature)
        return value + kl_weight * between(log_p, goal.to(log_p), "reverse-kl").sum()

    return head_loss(head, states, part, others)
