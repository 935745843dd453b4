"""Savings on curves whose answer is known by formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmstart.evaluation import Curve, CurvePoint, cost_to_reach, interval, savings
from warmstart.foundation.errors import UserError


def curve(losses: list[float], seed: int = 0, tokens: list[int] | None = None) -> Curve:
    """Points every 100 tokens, 1 second and 1e9 operations per 50 tokens."""
    at = tokens or [100 * i for i in range(len(losses))]
    points = [
        CurvePoint(step=t // 10, tokens=t, seconds=t / 50, flops=2e7 * t, bpb=loss)
        for t, loss in zip(at, losses, strict=True)
    ]
    return Curve(seed=seed, points=points)


def sampled(loss: Callable[[float], float], seed: int = 0, until: int = 4000) -> Curve:
    at = list(range(0, until + 1, 20))
    return curve([loss(t) for t in at], seed, at)


def test_linear_curves() -> None:
    """The baseline falls by 1 per 1000 tokens, the arm by 4."""
    baseline = curve([5.0, 4.9, 4.8, 4.7, 4.6])
    arm = curve([5.0, 4.6, 4.2, 3.8, 3.4])
    for axis, per_token in (("tokens", 1), ("seconds", 1 / 50), ("flops", 2e7)):
        found = savings([arm], [baseline], axis)
        assert found.reached and found.axis == axis
        assert found.cost.mean == pytest.approx(100 * per_token)
        assert found.ratio.mean == pytest.approx(0.25)


@pytest.mark.parametrize("speed", [1.0, 2.0, 3.7, 10.0])
def test_power_law_run_faster(speed: float) -> None:
    """The same curve at another speed reaches the same loss in 1 / speed of the tokens."""

    def loss(t: float) -> float:
        return 1 + 4 * (1 + t / 100) ** -0.5

    found = savings([sampled(lambda t: loss(speed * t))], [sampled(loss)], "tokens")
    assert found.ratio.mean == pytest.approx(1 / speed, rel=2e-3)


def test_head_start() -> None:
    """A warm start that is worth 600 of 1000 tokens needs the remaining 400."""
    baseline = sampled(lambda t: 8 - t / 500, until=1000)
    arm = sampled(lambda t: 8 - (t + 600) / 500, until=1000)
    assert savings([arm], [baseline]).ratio.mean == pytest.approx(0.4)


def test_better_from_the_start_costs_nothing() -> None:
    found = savings([curve([2.0, 1.9])], [curve([5.0, 3.0])])
    assert found.reached and found.cost.mean == 0 and found.ratio.mean == 0


def test_never_reached() -> None:
    arms = [curve([5, 4, 2.5], 0), curve([5, 4, 3.5], 1)]
    baselines = [curve([5, 4, 3], 0), curve([5, 4, 3], 1)]
    found = savings(arms, baselines, "seconds")
    assert not found.reached
    assert found.cost is None and found.ratio is None
    assert savings(arms[:1], baselines[:1]).reached


def test_non_monotone_curves_count_the_first_crossing() -> None:
    assert cost_to_reach(curve([5, 3, 4, 2]), 3.5, "tokens") == 75
    assert cost_to_reach(curve([5, 3, 4, 2]), 2.5, "tokens") == 275
    # The baseline had its final loss of 3 first at 250 tokens, between 3.5 and 2.5; then it got worse.
    found = savings([curve([5, 4, 3.5, 3, 2])], [curve([5, 4, 3.5, 2.5, 3])])
    assert found.cost.mean == 300
    assert found.ratio.mean == pytest.approx(300 / 250)


def test_diverged_runs() -> None:
    assert cost_to_reach(curve([5, math.inf, math.nan]), 3, "tokens") is None
    assert cost_to_reach(curve([math.inf, 2]), 3, "tokens") == 100
    assert not savings([curve([5, 4])], [curve([5, math.nan])]).reached


def test_a_baseline_that_learned_nothing_gives_no_ratio() -> None:
    found = savings([curve([6, 4])], [curve([5, 5])])
    assert found.reached and found.cost.mean == 50 and found.ratio is None


def test_pairs_by_seed_in_any_order() -> None:
    baselines = [curve([5, 4, 3], 2), curve([5, 4.5, 4], 1), curve([9, 9], 7)]
    arms = [curve([5, 3, 1], 1), curve([5, 3, 1], 2)]
    found = savings(arms, baselines)
    assert found.cost.per_seed == [50, 100]
    assert found.ratio.per_seed == [0.25, 0.5]
    with pytest.raises(UserError, match="seed 3"):
        savings([curve([5, 4], 3)], baselines)
    with pytest.raises(UserError, match="no runs"):
        savings([], baselines)


def test_intervals() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.high - 2 == pytest.approx(4.302652729911275 / math.sqrt(3))  # t table, 2 degrees of freedom
    assert found.low == pytest.approx(4 - found.high)
    one = interval([0.3])
    assert (one.low, one.mean, one.high) == (0.3, 0.3, 0.3)
    with pytest.raises(UserError):
        interval([])


@given(st.lists(st.floats(0.5, 20), min_size=1, max_size=8))
def test_a_curve_against_itself_is_one(losses: list[float]) -> None:
    found = savings([curve(losses)], [curve(losses)])
    assert found.reached
    assert found.ratio.mean == 1


@given(st.lists(st.floats(0.5, 20), min_size=2, max_size=8), st.floats(0.5, 20))
def test_cost_is_where_the_line_crosses(losses: list[float], target: float) -> None:
    at = cost_to_reach(curve(losses), target, "tokens")
    if at is None:
        assert min(losses) > target
        return
    k = min(int(at // 100), len(losses) - 2)
    assert all(loss > target for loss in losses[: math.ceil(at / 100 - 1e-9)])
    if at > 0:
        there = losses[k] + (losses[k + 1] - losses[k]) * (at / 100 - k)
        assert there == pytest.approx(target, rel=1e-6)
