"""What a warm start saved: the cost at which it reaches the loss that the baseline ends with."""

from __future__ import annotations

import math
from collections.abc import Sequence

from warmstart.evaluation.curves import Curve
from warmstart.evaluation.results import Axis, Interval, Saving
from warmstart.foundation.errors import UserError


def interval(values: Sequence[float]) -> Interval:
    """Mean and two-sided 95 % Student-t interval, `mean ± t_{0.975, n-1} s / sqrt(n)`.

    Args:
        values: One number per seed. With one seed the interval is the number itself: nothing is known about
            the spread.
    """
    if not values:
        raise UserError("an interval needs at least one value")
    n = len(values)
    mean = math.fsum(values) / n
    half = 0.0
    if n > 1:
        from scipy.stats import t

        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
        half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return Interval(mean=mean, low=mean - half, high=mean + half, per_seed=list(values))


def cost_to_reach(curve: Curve, target: float, axis: Axis) -> float | None:
    """Tokens, FLOPs or seconds at which the curve first is at or below `target` bits per byte.

    Between two evaluations the loss is taken to fall linearly in the cost. Loss curves bend upwards, so this
    says rather too much than too little, and it needs no logarithm at a cost of zero.

    Returns:
        The cost, 0 when the first point is there already, None when no point is.
    """
    before = None
    for point in curve.points:
        if point.bpb <= target:
            here = float(getattr(point, axis))
            if before is None:
                return here
            start = float(getattr(before, axis))
            if not math.isfinite(before.bpb):  # diverged and came back: no line to follow
                return here
            return start + (here - start) * (before.bpb - target) / (before.bpb - point.bpb)
        before = point
    return None


def savings(arm: Sequence[Curve], baseline: Sequence[Curve], axis: Axis = "tokens") -> Saving:
    """How much of the baseline's cost the arm needs to reach the baseline's final loss, seed by seed.

    For each seed: target = the baseline's last bits per byte; cost = where the arm first reaches it; ratio =
    cost divided by where the baseline first reaches it. That is the baseline's whole cost when it ends at its
    best, and less when it was better before: the arm is not credited for tokens that did the baseline no
    good.

    Args:
        arm: One curve per seed.
        baseline: Curves of at least the same seeds.
        axis: What is counted: `tokens`, `flops` or `seconds`.

    Returns:
        Cost and ratio with their 95 % intervals over seeds; both None when a seed never reached its target,
        because a mean over the seeds that did would flatter the arm.
    """
    by_seed = {curve.seed: curve for curve in baseline}
    missing = sorted({curve.seed for curve in arm} - set(by_seed))
    if missing or not arm:
        raise UserError(
            f"the baseline has no run with seed {missing[0]}" if missing else "the arm has no runs",
            fix="run both with the same seeds; arms are compared seed by seed",
        )
    costs: list[float] = []
    ratios: list[float] = []
    for curve in arm:
        reference = by_seed[curve.seed]
        spent = cost_to_reach(reference, reference.final, axis)
        cost = cost_to_reach(curve, reference.final, axis)
        if cost is None or spent is None:
            return Saving(axis=axis, reached=False, cost=None, ratio=None)
        costs.append(cost)
        ratios.append(cost / spent if spent else (1.0 if not cost else math.inf))
    if not all(map(math.isfinite, ratios)):  # a baseline that never got better than untrained
        return Saving(axis=axis, reached=True, cost=interval(costs), ratio=None)
    return Saving(axis=axis, reached=True, cost=interval(costs), ratio=interval(ratios))
