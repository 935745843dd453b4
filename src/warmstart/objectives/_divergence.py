"""Divergences between a teacher's and a student's distribution, over tokens or over classes.

p is the teacher, q the student, both softmaxes of logits divided by a temperature:

- `forward-kl`: `KL(p || q) = sum p (log p - log q)`: the student must cover all that the teacher says;
- `reverse-kl`: `KL(q || p)`: it may leave things out, but not add any;
- `symmetric-kl`: `w KL(p || q) + (1 - w) KL(q || p)`; w = 1/2 is half of Jeffreys' divergence, and whittle's
  "symmetric" (0.9 reverse) is w = 0.1;
- `jensen-shannon`: `w KL(p || m) + (1 - w) KL(q || m)`, `m = w p + (1 - w) q`; symmetric at w = 1/2, at most
  the entropy of (w, 1 - w), that is at most ln 2 (SSLD, arXiv 2103.05959, uses w = 1/2 alone).

All are f-divergences, so merging classes never makes them larger. That is what a teacher of whom only the k
likeliest classes are known relies on: all others are one class, the tail, and the divergence over k + 1
classes is a lower bound of the full one, equal to it for k = C. (whittle's stored top-k logits set the others
to -1e9, as if the teacher excluded them.)

Probabilities of zero are safe: log-probabilities are cut at a finite number far below all that occur, so that
`0 log 0` is 0 and gradients stay finite. Shapes: N places, C classes; values in nats.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Kind = Literal["forward-kl", "reverse-kl", "symmetric-kl", "jensen-shannon"]
"""Names of the divergences."""


class Top(NamedTuple):
    """What is known of a teacher: its k likeliest classes and the rest as one.

    Attributes:
        ids: Classes, (N, k), the likeliest first.
        log_p: Their log-probabilities, (N, k).
        tail: Log-probability of all other classes together, (N,); None where there are none (k = C).
    """

    ids: Tensor
    log_p: Tensor
    tail: Tensor | None


def divergence(
    student: Tensor,
    teacher: Tensor | Top,
    kind: Kind = "forward-kl",
    *,
    temperature: float = 1.0,
    teacher_temperature: float | None = None,
    mixing: float = 0.5,
) -> Tensor:
    """The divergence at each place, (N,), without the factor T^2.

    Args:
        student: Logits (N, C).
        teacher: Logits (N, C), or the top of the teacher's distribution, made at its temperature.
        kind: Which divergence.
        temperature: Divides the student's logits.
        teacher_temperature: Divides the teacher's; the student's by default.
        mixing: w, the teacher's weight; in (0, 1).
    """
    if isinstance(teacher, Top):
        log_q, log_p = on_top(student, teacher, temperature)
    else:
        log_q = log_softmax(student, temperature)
        log_p = log_softmax(teacher, temperature if teacher_temperature is None else teacher_temperature)
    return between(log_q, log_p.to(log_q), kind, mixing)


def between(log_q: Tensor, log_p: Tensor, kind: Kind = "forward-kl", mixing: float = 0.5) -> Tensor:
    """The divergence of log-probabilities (N, C) of student and teacher, (N,)."""
    lowest = torch.finfo(log_q.dtype).min / 8
    log_q, log_p = log_q.clamp(min=lowest), log_p.clamp(min=lowest)
    if kind == "forward-kl":
        return _kl(log_p, log_q)
    if kind == "reverse-kl":
        return _kl(log_q, log_p)
    if kind == "symmetric-kl":
        return mixing * _kl(log_p, log_q) + (1 - mixing) * _kl(log_q, log_p)
    middle = torch.logaddexp(log_p + math.log(mixing), log_q + math.log1p(-mixing))
    return mixing * _kl(log_p, middle) + (1 - mixing) * _kl(log_q, middle)


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def log_softmax(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities in float32 or better."""
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return (exact if temperature == 1.0 else exact / temperature).log_softmax(-1)


def top_of(teacher: Tensor, k: int, temperature: float = 1.0) -> Top:
    """The k likeliest classes of logits (N, C), and the mass of the others."""
    log_p = log_softmax(teacher, temperature)
    k = min(k, log_p.shape[-1])
    values, ids = log_p.topk(k, dim=-1)
    return Top(ids, values, others(log_p, ids))


def on_top(student: Tensor, top: Top, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probabilities of student and teacher over the teacher's k classes and the tail, (N, k + 1) each."""
    every = log_softmax(student, temperature)
    log_q, log_p = every.gather(-1, top.ids), top.log_p.to(every)
    if top.tail is None:
        return log_q, log_p
    rest = others(every, top.ids)
    if rest is None:
        raise ValueError(f"the teacher has more classes than the student's {every.shape[-1]}")
    return torch.cat([log_q, rest[:, None]], -1), torch.cat([log_p, top.tail.to(every)[:, None]], -1)


def others(log_p: Tensor, ids: Tensor) -> Tensor | None:
    """Log of the mass outside of `ids`, (N,), as a sum: exact also where it is tiny."""
    if ids.shape[-1] == log_p.shape[-1]:
        return None
    return log_p.scatter(-1, ids, -torch.inf).logsumexp(-1)


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """`-sum_c p(c) log q(c)` at each place, (N,): forward KL plus the teacher's entropy, a constant.

    The loss of Pre-trained Distillation ("Well-Read Students Learn Better", arXiv 1908.08962), at temperature
    1 and without labels.
    """
    lowest = torch.finfo(torch.float32).min / 8
    log_q = log_softmax(student, temperature).clamp(min=lowest)
    return -(log_softmax(teacher, temperature).exp().to(log_q) * log_q).sum(-1)


def class_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None = None,
    *,
    kind: Kind | Literal["soft-cross-entropy"] = "soft-cross-entropy",
    alpha: float = 0.0,
    beta: float = 1.0,
    temperature: float = 1.0,
    mixing: float = 0.5,
) -> Tensor:
    """Mean over N texts of `alpha CE(labels) + beta T^2 D(teacher, student)` on class logits.

    The defaults are those of Pre-trained Distillation: soft cross-entropy, no labels. SSLD is `kind:
    jensen-shannon`, also without labels and at temperature 1.

    Args:
        student: Logits (N, C).
        teacher: Logits (N, C); gets no gradient.
        labels: Classes, (N,), -100 for a text without a label; needed where alpha > 0.
        kind: A divergence, or `soft-cross-entropy`.
        alpha: Weight of the labels.
        beta: Weight of the teacher.
        temperature: T.
        mixing: As in `divergence`.
    """
    goal = teacher.detach()
    if kind == "soft-cross-entropy":
        taught = soft_cross_entropy(student, goal, temperature)
    else:
        taught = divergence(student, goal, kind, temperature=temperature, mixing=mixing)
    total = beta * temperature**2 * taught.sum()
    if alpha:
        if labels is None:
            raise ValueError("alpha above zero needs labels")
        total = total + alpha * F.cross_entropy(student, labels, reduction="sum", ignore_index=-100)
    return total / max(len(student), 1)
