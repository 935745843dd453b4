"""Rank correlation between start and end, against the formula written out."""

from __future__ import annotations

import pytest

from warmstart.evaluation.curves import Curve, CurvePoint
from warmstart.evaluation.results import Arm, Interval
from warmstart.recipes.ranks import correlation, ranks_table


def arm(name: str, *runs: tuple[float, float]) -> Arm:
    def point(bpb: float, step: int) -> CurvePoint:
        return CurvePoint.model_validate({**EMPTY, "step": step, "tokens": 10 * step, "bpb": bpb})

    curves = [
        Curve(seed=s, points=[point(a, 0), point(9.0, 1), point(b, 2)]) for s, (a, b) in enumerate(runs)
    ]
    ends = [b for _, b in runs]
    final = Interval(mean=sum(ends) / len(ends), low=0, high=9, per_seed=ends)
    plain = {"name": name, "description": "", "learning_rate": 1e-3, "learning_rates": {}, "savings": []}
    return Arm(**plain, curves=curves, final_bpb=final)


EMPTY = {"seconds": 0.0, "flops": 0.0}


def test_ranks_are_of_means_over_seeds_and_ties_share() -> None:
    arms = [
        arm("a", (3.0, 2.0), (5.0, 2.2)),
        arm("b", (4.0, 1.5)),
        arm("c", (2.0, 1.9)),
        arm("d", (7.0, 1.0)),
    ]
    made = ranks_table(arms)
    assert [row[0] for row in made["rows"]] == ["a", "b", "c", "d"]
    assert [row[1] for row in made["rows"]] == ["4.000", "4.000", "2.000", "7.000"]
    assert [row[2] for row in made["rows"]] == ["2.5", "2.5", "1", "4"]
    assert [row[4] for row in made["rows"]] == ["4", "2", "3", "1"]
    x, y = [2.5, 2.5, 1, 4], [4, 2, 3, 1]
    cov = sum((a - 2.5) * (b - 2.5) for a, b in zip(x, y))
    rho = cov / (sum((a - 2.5) ** 2 for a in x) * sum((b - 2.5) ** 2 for b in y)) ** 0.5
    assert f"{rho:.2f}" in made["title"] and rho < -0.5
    assert correlation([4.0, 4.0, 2.0, 7.0], [2.1, 1.5, 1.9, 1.0]) == pytest.approx(rho)


def test_too_little_to_correlate() -> None:
    assert correlation([1.0, 2.0], [1.0, 2.0]) is None
    assert correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert "too few arms" in ranks_table([arm("a", (3.0, 2.0)), arm("b", (2.0, 1.0))])["title"]
