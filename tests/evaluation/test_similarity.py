"""Ranks of sentence similarities, against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from warmstart.evaluation.similarity import agreement, cosines, rank_correlation
from warmstart.foundation.errors import UserError


def _rho(first: list[float], second: list[float]) -> float:
    """Spearman's rho from mean ranks, counted one by one."""

    def ranks(values: list[float]) -> list[float]:
        return [sum(o < v for o in values) + (1 + sum(o == v for o in values)) / 2 for v in values]

    a, b = np.array(ranks(first)), np.array(ranks(second))
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def test_rho_is_that_of_mean_ranks() -> None:
    first, second = [0.1, 0.4, 0.4, 2.0, -1.0], [3.0, 3.0, 1.0, 9.0, 0.0]
    assert rank_correlation(first, second) == pytest.approx(_rho(first, second), 1e-12)
    assert rank_correlation([1, 2, 3], [1, 8, 27]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [5, 5, 5]) == 0, "who finds all alike ranks nothing"
    with pytest.raises(UserError, match="equally long"):
        rank_correlation([1, 2], [1, 2, 3])


def test_agreement_is_over_all_pairs_and_knows_no_direction() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.standard_normal((6, 3)), rng.standard_normal((6, 8))
    pairs = [(i, j) for i in range(6) for j in range(i)]

    def cosine(side: np.ndarray, i: int, j: int) -> float:
        return float(side[i] @ side[j] / np.linalg.norm(side[i]) / np.linalg.norm(side[j]))

    expected = _rho([cosine(ours, *p) for p in pairs], [cosine(theirs, *p) for p in pairs])
    assert agreement(ours, theirs) == pytest.approx(expected, 1e-10)
    turned = theirs @ np.linalg.qr(rng.standard_normal((8, 8)))[0]
    assert agreement(turned * rng.uniform(1, 9, (6, 1)), theirs) == pytest.approx(1)
    for wrong in (theirs[:5], theirs[:2]):
        with pytest.raises(UserError, match="three sentences"):
            agreement(ours[:2] if len(wrong) == 2 else ours, wrong)
    with pytest.raises(UserError, match="not finite"):
        agreement(ours, np.full((6, 8), np.nan))


def test_a_zero_vector_is_like_nothing() -> None:
    assert cosines(np.array([[0.0, 0], [1, 1]]), np.array([[1.0, 0], [2, 2]])).tolist() == pytest.approx(
        [0, 1]
    )
