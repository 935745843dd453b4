"""How many bits labels cost whoever holds the vectors: online code length, and two codes without vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from pydantic import BaseModel, ConfigDict

from warmstart.foundation.errors import UserError

PORTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Shares of the data after which the probe is learned anew (Voita and Titov)."""

Predict = Callable[[int, int], np.ndarray]
"""`(start, stop)` to natural log-probabilities of those examples' labels, `(stop - start, classes)`."""


class CodeLength(BaseModel):
    """Bits that the labels of a data set cost."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    bits: float
    """Online code length."""
    compression: float
    """Bits of the uniform code over `bits`; 1 for vectors that say nothing."""


def online_code(
    labels: np.ndarray,
    classes: int,
    learn: Callable[[int], Predict],
    *,
    portions: Sequence[float] = PORTIONS,
) -> CodeLength:
    """`L = t_1 log2 K - sum_i sum_{t_i < j <= t_(i+1)} log2 p_i(y_j | x_j)`, `p_i` learned from `t_i` labels.

    The first portion is sent with the uniform code over K classes, each further one with a probe that has
    learned from all that was sent before. So a long code means that labels are hard to predict from the
    vectors, or that it takes many of them to learn it. Voita and Titov, "Information-Theoretic Probing with
    Minimum Description Length", arXiv 2003.12298, after Rissanen's prequential code. The released code
    stops its probes by the loss on a separate development set, which receiver and sender would have to share
    first; here a probe must stop by what was sent.

    Args:
        labels: `(n,)` numbers of classes, in random order.
        classes: K.
        learn: `t` to the predictions of a probe learned from the first t examples.
        portions: Ascending shares; the last is 1.

    Raises:
        UserError: No examples, fewer than two classes, or portions that do not ascend to 1.
    """
    _check(labels, classes)
    if list(portions) != sorted(set(portions)) or not portions or portions[0] <= 0 or portions[-1] != 1:
        raise UserError("portions must be shares that ascend to 1", where="online code")
    steps = ends_of(len(labels), portions)
    bits = steps[0] * math.log2(classes)
    for start, stop in pairwise(steps):
        told = learn(start)(start, stop)
        bits -= float(told[np.arange(stop - start), labels[start:stop]].sum()) / math.log(2)
    return CodeLength(bits=bits, compression=uniform_bits(len(labels), classes) / bits)


def ends_of(count: int, portions: Sequence[float] = PORTIONS) -> list[int]:
    """How many examples each portion ends with: rounded, at least one, each number once, the last `count`."""
    return sorted({max(1, round(share * count)) for share in portions})


def uniform_bits(count: int, classes: int) -> float:
    """`n log2 K`: each label for itself, all of them equally likely."""
    return count * math.log2(classes)


def frequency_bits(labels: np.ndarray, classes: int) -> float:
    """Bits by frequencies alone: `-sum log2 ((n_y + 1/2) / (n + K/2))`, counted before each label.

    The sequential code of Krichevsky and Trofimov: what is to be undercut by vectors that say anything. The
    product does not depend on the order: `G(K/2) / G(n + K/2) * prod_y G(n_y + 1/2) / G(1/2)`, G being gamma.
    """
    _check(labels, classes)
    counts = np.bincount(labels, minlength=classes)
    total = math.lgamma(classes / 2) - math.lgamma(len(labels) + classes / 2)
    total += sum(math.lgamma(n + 0.5) - math.lgamma(0.5) for n in counts.tolist())
    return -total / math.log(2)


def _check(labels: np.ndarray, classes: int) -> None:
    if not len(labels) or classes < 2:
        raise UserError(
            f"{len(labels)} examples of {classes} classes cannot be told apart",
            where="online code",
            fix="give labelled texts of at least two classes",
        )
