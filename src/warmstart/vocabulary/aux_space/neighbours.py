"""Nearest neighbours and sparsemax over cosines: exact, in tiles, at 250k x 50k within a few hundred MiB.

Both methods need, for every query, the few keys above a threshold: the k-th best cosine, or sparsemax's
tau. A lower bound of either follows from *any* subset of the cosines, and only grows as more are seen. So
each tile of cosines is first reduced to the maximum of every group of 32; the groups that stay below the
bound are dropped unseen. On processors with bfloat16 arithmetic the tiles are computed in it; the rounding
error of each vector is known, so the bound is lowered by twice the largest error possible and nothing is
missed. What survives is computed again in float64. The result is therefore the same on every machine, and
does not depend on tile sizes, threads or the arithmetic of the tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from torch import Tensor

R = TypeVar("R")

QUERY_TILE = 1024
KEY_TILE = 4096
GROUP = 32
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

    _search(queries, keys, _kth(k), choose, keep=k)
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

    parts = _search(queries, keys, _tau_bound(1.0 / scale), weigh, keep=_BEST)
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


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of `vectors` `(n, d)` scaled to length one, float32; zero rows stay zero."""
    out = np.empty(vectors.shape, dtype=np.float32)
    for start in range(0, len(vectors), 8192):
        part = vectors[start : start + 8192].astype(np.float64)
        length = np.sqrt(np.einsum("ij,ij->i", part, part))[:, None]
        out[start : start + 8192] = np.divide(part, length, out=np.zeros_like(part), where=length != 0)
    return out


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


@dataclass(frozen=True)
class _Side:
    """One set of unit vectors `(n, d)`, its rounded form for the tiles, and how far the two differ."""

    exact: np.ndarray
    tile: Tensor
    error: np.ndarray
    norm: float

    @classmethod
    def of(cls, vectors: np.ndarray, *, half: bool) -> _Side:
        import torch

        exact = unit(np.asarray(vectors))
        if not np.isfinite(exact).all():
            raise ValueError("vectors must be finite")
        if not exact.any(axis=1).all():
            raise ValueError("a zero vector has no cosine; leave it out")
        tile = torch.from_numpy(exact)
        error, norm = np.zeros(len(exact)), 1.0
        if half:
            tile = tile.to(torch.bfloat16)
            for start in range(0, len(exact), 8192):
                part = slice(start, start + 8192)
                error[part] = np.linalg.norm(tile[part].float().numpy() - exact[part], axis=1)
            norm = 1.0 + float(error.max(initial=0.0))
        return cls(exact, tile, error, norm)


def _search(
    queries: np.ndarray,
    keys: np.ndarray,
    bound: Callable[[Tensor], Tensor],
    finish: Callable[[int, np.ndarray, np.ndarray, np.ndarray], R],
    *,
    keep: int,
) -> list[R]:
    """Find all pairs that may count, and hand those of each tile of queries to `finish`.

    `finish` gets the tile's first query, and for each pair the row within the tile, the key and the exact
    cosine, sorted by row and key. Tiles run in as many threads as torch has, one thread each: the single
    operations are too short to be divided, above all on a busy machine.
    """
    import torch

    if queries.shape[1:] != keys.shape[1:]:
        raise ValueError(f"queries have {queries.shape[1:]} dimensions, keys {keys.shape[1:]}")
    half = len(keys) >= KEY_TILE and has_bfloat16()
    query_side, key_side = _Side.of(queries, half=half), _Side.of(keys, half=half)
    # |a'b' - ab| <= |a'-a| |b'| + |a| |b'-b|; then the product itself is rounded
    rounding = queries.shape[1] * 2.0**-23 + (2.0**-8 if half else 0.0) * query_side.norm * key_side.norm

    @torch.inference_mode()
    def tile(start: int) -> R:
        rows = slice(start, min(start + QUERY_TILE, len(queries)))
        error = torch.from_numpy(query_side.error[rows]).float() * key_side.norm
        slack = 2.0 * (error + float(key_side.error.max(initial=0.0)) + rounding)
        row, column = _candidates(query_side.tile[rows], key_side.tile, slack, bound, keep)
        return finish(start, row, column, _cosines(query_side.exact[rows], key_side.exact, row, column))

    starts, threads = range(0, len(queries), QUERY_TILE), torch.get_num_threads()
    if threads == 1 or len(starts) == 1:
        return [tile(start) for start in starts]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(tile, starts))
    finally:
        torch.set_num_threads(threads)


def _candidates(
    queries: Tensor, keys: Tensor, slack: Tensor, bound: Callable[[Tensor], Tensor], keep: int
) -> tuple[np.ndarray, np.ndarray]:
    """Row and key of all pairs at most `slack` below the bound, sorted."""
    import torch

    lowest = torch.full((len(queries),), -4.0)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    pool: list[Tensor] = []

    def raised() -> Tensor:
        joined = torch.cat(pool, dim=1)
        pool[:] = [joined.topk(min(keep, joined.shape[1]), dim=1).values]
        return torch.maximum(lowest, bound(pool[0]))

    for number, left in enumerate(range(0, len(keys), KEY_TILE), start=1):
        groups, width = _grouped(queries @ keys[left : left + KEY_TILE].T)
        maxima = groups.amax(1).float()
        pool.append(maxima)
        if number & (number - 1) == 0:  # at tiles 1, 2, 4, 8 ...: raising the bound costs a sort of the pool
            lowest = raised()
        row, column, value = _above(groups, maxima, lowest - slack, width)
        found.append((row, column + left, value))
    limit = raised() - slack
    row, column, value = (torch.cat(item) for item in zip(*found))
    may = value >= limit[row]
    pair = (row[may] * len(keys) + column[may]).sort().values.numpy()
    return pair // len(keys), pair % len(keys)


def _grouped(product: Tensor) -> tuple[Tensor, int]:
    """One tile as `(rows, GROUP, groups)`, padded with impossible cosines, and its true width."""
    count, width = product.shape
    if width % GROUP:
        padded = product.new_full((count, width + GROUP - width % GROUP), -8.0)
        padded[:, :width] = product
        product = padded
    return product.view(count, GROUP, -1), width


def _above(groups: Tensor, maxima: Tensor, limit: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of the entries of one tile at or above their row's limit."""
    row, group = (maxima >= limit[:, None]).nonzero(as_tuple=True)
    members = groups[row, :, group].float()  # (hits, GROUP); member i of group g is column i * groups + g
    hit, member = (members >= limit[row, None]).nonzero(as_tuple=True)
    column = member * maxima.shape[1] + group[hit]
    inside = column < width
    hit, member, column = hit[inside], member[inside], column[inside]
    return row[hit], column, members[hit, member]


def _cosines(queries: np.ndarray, keys: np.ndarray, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Cosines of given pairs of unit vectors, `(len(row),)` float64."""
    out = np.empty(len(row))
    step = max(1, (1 << 22) // max(1, queries.shape[1]))
    for start in range(0, len(row), step):
        part = slice(start, start + step)
        left, right = queries[row[part]].astype(np.float64), keys[column[part]].astype(np.float64)
        np.einsum("ij,ij->i", left, right, out=out[part])
    return out


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


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32."""
    import torch

    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool((probe and probe()) or (amx and amx()))
