"""Nearest neighbours and sparsemax over cosines, exact, at 250k x 50k within about 1 GiB."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from warmstart.vocabulary.aux_space.tiles import search

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from torch import Tensor

_BEST = 128  # group maxima kept per query, from which sparsemax's bound is computed


def nearest_by_cosine(queries: np.ndarray, keys: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `k` keys with the largest cosine to each query.

    Args:
        queries: `(n, d)` vectors, none of them zero.
        keys: `(m, d)` vectors, none of them zero.
        k: Neighbours wanted; at most `m` are returned.

    Returns:
        Key indices `(n, k)` int64 and cosines `(n, k)` float64, the best first; equal cosines by index.

    Raises:
        ValueError: A zero vector, or dimensions that differ.
    """
    k = min(k, len(keys))
    indices = np.empty((len(queries), k), dtype=np.int64)
    cosines = np.empty((len(queries), k))
    if k == 0:
        return indices, cosines

    def choose(start: int, row: np.ndarray, column: np.ndarray, cosine: np.ndarray) -> None:
        order = np.lexsort((column, -cosine, row))
        counts = np.bincount(row)
        chosen = order[(np.cumsum(counts) - counts)[:, None] + np.arange(k)]
        stop = start + len(counts)
        indices[start:stop], cosines[start:stop] = column[chosen], cosine[chosen]

    search(queries, keys, _kth(k), choose, keep=k)
    return indices, cosines


def sparsemax_by_cosine(queries: np.ndarray, keys: np.ndarray, scale: float = 1.0) -> csr_matrix:
    """`sparsemax(scale * cos(query, keys))` for every query, as a sparse matrix.

    Args:
        queries: `(n, d)` vectors, none of them zero.
        keys: `(m, d)` vectors, none of them zero.
        scale: Factor on the cosines; larger gives fewer and more unequal weights.

    Returns:
        `(n, m)` float64 weights; every row sums to one.

    Raises:
        ValueError: A zero vector, dimensions that differ, no keys, or a scale that is not positive.
    """
    from scipy.sparse import csr_matrix

    if len(keys) == 0 or scale <= 0:
        raise ValueError("sparsemax needs at least one key and a positive scale")

    def weigh(start: int, row: np.ndarray, column: np.ndarray, cosine: np.ndarray) -> tuple[np.ndarray, ...]:
        weight = _ragged_sparsemax(row, cosine * scale)
        used = weight > 0
        return row[used] + start, column[used], weight[used]

    parts = search(queries, keys, _tau_bound(1.0 / scale), weigh, keep=_BEST)
    if not parts:
        return csr_matrix((len(queries), len(keys)))
    rows, columns, weights = (np.concatenate(part) for part in zip(*parts))
    matrix = csr_matrix((weights, (rows, columns)), shape=(len(queries), len(keys)))
    matrix.sort_indices()
    return matrix


def sparsemax(scores: np.ndarray) -> np.ndarray:
    """Euclidean projection of each row of `scores` `(n, m)` onto the simplex, float64.

    `max(s - tau, 0)` with the `tau` that makes the row sum to one; `tau` follows from the sorted scores
    (Martins and Astudillo, "From Softmax to Sparsemax", arXiv 1602.02068).
    """
    scores = np.asarray(scores, dtype=np.float64)
    ordered = -np.sort(-scores, axis=-1)
    sums = np.cumsum(ordered, axis=-1) - 1.0
    count = np.arange(1, scores.shape[-1] + 1)
    size = np.sum(ordered * count > sums, axis=-1, keepdims=True)
    tau = np.take_along_axis(sums, size - 1, axis=-1) / size
    weights = np.maximum(scores - tau, 0.0)
    return weights / weights.sum(axis=-1, keepdims=True)


def _kth(k: int) -> Callable[[Tensor], Tensor]:
    """Bound for nearest neighbours: the k-th best so far; minus infinity until `k` were seen."""

    def bound(best: Tensor) -> Tensor:
        return best[:, k - 1] if best.shape[1] >= k else best.new_full((len(best),), -4.0)

    return bound


def _tau_bound(mass: float) -> Callable[[Tensor], Tensor]:
    """Bound for sparsemax: its threshold over the subset seen, which never exceeds the threshold over all."""

    def bound(best: Tensor) -> Tensor:
        import torch

        # best is sorted downwards; the threshold is the largest of (partial sum - mass) / size
        sums = best.double().cumsum(1) - mass
        return (sums / torch.arange(1, best.shape[1] + 1)).amax(1).float()

    return bound


def _ragged_sparsemax(row: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Sparsemax over the entries of each row; `row` is sorted and has no gaps; weights come back per entry.

    Newton's steps on the threshold: from below it rises to the exact value in finitely many steps.
    """
    count = np.bincount(row)
    tau = (np.bincount(row, weights=score) - 1.0) / count
    while True:
        support = score > tau[row]
        size = np.bincount(row[support], minlength=len(count))
        total = np.bincount(row[support], weights=score[support], minlength=len(count))
        higher = np.maximum(tau, (total - 1.0) / np.maximum(size, 1))
        if np.array_equal(higher, tau):
            break
        tau = higher
    tau = (total - 1.0) / size  # from the support alone, so that more candidates change no bit
    weight = np.maximum(score - tau[row], 0.0)
    return weight / np.bincount(row, weights=weight)[row]
