"""Does the loss before training tell which arm is best after it?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warmstart.evaluation.results import Arm


def ranks_table(arms: Sequence[Arm]) -> dict[str, Any]:
    """Loss and rank of each arm before and after training, with their rank correlation in the title.

    Means over seeds; equal losses share the mean of their ranks. Spearman's rho is 1 where the start orders
    the arms as the end does, -1 where it turns them round; the title says so where fewer than three arms or
    equal losses leave nothing to correlate.
    """
    from scipy.stats import rankdata

    losses = [
        [sum(curve.points[at].bpb for curve in arm.curves) / len(arm.curves) for arm in arms]
        for at in (0, -1)
    ]
    ranks = [rankdata(values) for values in losses]
    rho = correlation(*losses)
    told = "too few arms" if rho is None else f"Spearman's rho {rho:.2f}"
    rows = [
        [arm.name, f"{losses[0][i]:.3f}", f"{ranks[0][i]:g}", f"{losses[1][i]:.3f}", f"{ranks[1][i]:g}"]
        for i, arm in enumerate(arms)
    ]
    return {
        "title": f"Rank before and after training: {told}",
        "columns": ["arm", "before", "rank", "after", "rank"],
        "rows": rows,
    }


def correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rho; None for fewer than three values, or where all of one side are equal."""
    from warmstart.evaluation.similarity import rank_correlation

    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return rank_correlation(first, second)
