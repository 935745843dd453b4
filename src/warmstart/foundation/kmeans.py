"""k-means for tables that fit into memory: the same centres on every machine for a seed."""

from __future__ import annotations

import numpy as np

from warmstart.foundation.errors import UserError

_CHUNK = 8192


def kmeans(points: np.ndarray, count: int, *, seed: int = 0, rounds: int = 25) -> np.ndarray:
    """Centres of `count` clusters, `(count, d)` float64.

    Begins with k-means++ (Arthur and Vassilvitskii, 2007) and moves each centre to the mean of its points
    until nothing changes, at most `rounds` times. A centre without points moves to the point that is farthest
    from its own.

    Args:
        points: `(n, d)`.
        count: Clusters.
        seed: Seed of the first centres.
        rounds: Most moves.

    Raises:
        UserError: There are fewer different points than clusters.
    """
    points = np.asarray(points, dtype=np.float64)
    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(points)))] if len(points) else []
    gap = np.full(len(points), np.inf)
    while len(chosen) < count:
        gap = np.minimum(gap, np.square(points - points[chosen[-1]]).sum(1)) if chosen else gap
        total = gap.sum()
        if not chosen or not total > 0:
            raise UserError(f"{len(chosen)} different vectors cannot make {count} clusters")
        chosen.append(int(np.searchsorted(np.cumsum(gap), rng.random() * total, side="right")))
    centres = points[chosen]
    for _ in range(rounds):
        label, distance = nearest_centre(points, centres)
        sums = np.zeros_like(centres)
        np.add.at(sums, label, points)
        sizes = np.bincount(label, minlength=count)
        moved = sums / np.maximum(sizes, 1)[:, None]
        empty = np.flatnonzero(sizes == 0)
        moved[empty] = points[np.argsort(-distance, kind="stable")[: len(empty)]]
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def nearest_centre(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest centre of each point, `(n,)`, and the squared distance to it, `(n,)`."""
    label, distance = np.empty(len(points), dtype=np.int64), np.empty(len(points))
    lengths = np.square(centres).sum(1)
    for start in range(0, len(points), _CHUNK):
        part = np.asarray(points[start : start + _CHUNK], dtype=np.float64)
        gap = lengths - 2 * part @ centres.T
        best = gap.argmin(1)
        label[start : start + _CHUNK] = best
        distance[start : start + _CHUNK] = np.square(part - centres[best]).sum(1)
    return label, distance
