"""Which of several points are best when every coordinate is to be small.

Points are `(n, m)`, one row each. A point dominates another if it is nowhere larger and somewhere smaller.
"""

from __future__ import annotations

import numpy as np


def fronts(points: np.ndarray) -> list[np.ndarray]:
    """Rows in order of dominance: those that nothing dominates, those that only these dominate, and so on.

    The sorting of NSGA-II (Deb et al., A fast and elitist multiobjective genetic algorithm). Equal points
    share a front.

    Args:
        points: `(n, m)`.
    """
    nowhere_larger = np.all(points[:, None] <= points[None], axis=-1)
    somewhere_smaller = np.any(points[:, None] < points[None], axis=-1)
    over = np.asarray(nowhere_larger & somewhere_smaller)  # over[i, j]: i dominates j
    above = over.sum(0)
    found, left = [], np.ones(len(points), dtype=bool)
    while left.any():
        first = left & (above == 0)
        found.append(np.flatnonzero(first))
        left &= ~first
        above = above - over[first].sum(0)
    return found


def crowding(points: np.ndarray) -> np.ndarray:
    """How much room each point of one front has, `(n,)`: sum over coordinates of the distance between its two
    neighbours, as a share of the whole range; infinite at the ends.

    Args:
        points: `(n, m)`.
    """
    room = np.zeros(len(points))
    for values in points.T:
        order = np.argsort(values, kind="stable")
        room[order[[0, -1]]] = np.inf
        if (span := values[order[-1]] - values[order[0]]) > 0:
            room[order[1:-1]] += (values[order[2:]] - values[order[:-2]]) / span
    return room


def ranked(points: np.ndarray) -> np.ndarray:
    """Rows from best to worst: by front, within a front those with more room first."""
    order = [front[np.argsort(-crowding(points[front]), kind="stable")] for front in fronts(points)]
    return np.concatenate(order) if order else np.zeros(0, dtype=np.int64)


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """Volume of what the points dominate, below a reference point: exact, in any number of dimensions.

    Slices along the last coordinate; between two of its values the slice is the volume of all points up to
    there in one dimension less. O(n^(m-1)) slices; searches have two objectives.

    Args:
        points: `(n, m)`; points that are not below the reference everywhere count for nothing.
        reference: `(m,)`.
    """
    inside = points[(points < reference).all(-1)]
    if not len(inside):
        return 0.0
    if inside.shape[1] == 1:
        return float(reference[0] - inside.min())
    inside = inside[np.argsort(inside[:, -1], kind="stable")]
    ends = np.append(inside[1:, -1], reference[-1])
    total = 0.0
    for number, height in enumerate(ends - inside[:, -1]):
        if height > 0:
            total += height * hypervolume(inside[: number + 1, :-1], reference[:-1])
    return float(total)
