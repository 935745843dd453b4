"""How sentence vectors rank pairs of sentences: as another model does, and as people do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from warmstart.evaluation.retrieval import unit
from warmstart.foundation.errors import UserError


def rank_correlation(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Spearman's rho of two lists, ties at their mean rank; 0 where all numbers of one side are equal."""
    from scipy.stats import spearmanr

    left, right = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if left.shape != right.shape or len(left) < 2:
        raise UserError(f"ranks are compared of two equally long lists, got {len(left)} and {len(right)}")
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return 0.0
    return float(spearmanr(left, right).statistic)


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of each pair of vectors `(n, d)`, `(n,)`; 0 for a zero vector."""
    found: np.ndarray = (unit(first) * unit(second)).sum(axis=1)
    return found


def agreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Rank correlation of the cosines of all pairs of sentences under two models, in [-1, 1].

    The measure asks for the order of similarities alone, so the two may differ in width and direction.

    Args:
        ours: Vectors `(n, d)` of n sentences.
        theirs: Vectors `(n, D)` of the same sentences, or of their translations. Memory is `2 n^2` numbers.

    Raises:
        UserError: Fewer than three sentences, another number of them, or vectors that are not finite.
    """
    if len(ours) != len(theirs) or len(ours) < 3:
        raise UserError(
            "the order of similarities needs the same three sentences or more, "
            f"got {len(ours)} and {len(theirs)}"
        )
    pairs = np.triu_indices(len(ours), 1)
    first, second = ((side := unit(one)) @ side.T for one in (ours, theirs))
    return rank_correlation(first[pairs], second[pairs])
