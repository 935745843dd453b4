"""All pairs of vectors whose cosine may matter, found in tiles without looking at each.

Nearest neighbours and sparsemax need, for every query, the few keys above a threshold: the k-th best cosine,
or sparsemax's tau. A lower bound of either follows from *any* subset of the cosines, and only grows as more
are seen. So each tile of cosines is first reduced to the maximum of every group of 32; the groups that stay
below the bound are dropped unseen.

On processors with 8-bit integer arithmetic the tiles are computed in it, which is several times faster:
vectors are turned at random, so that no component stands out, and rounded to 255 steps (the few vectors that
this would cut off stay in float32). The error of each vector is measured, and the bound lowered by twice the
largest error of a cosine that can follow from it, so nothing is missed. What survives is computed again in
float64. The result is therefore the same on every machine, and does not depend on tile sizes, threads or the
arithmetic of the tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

R = TypeVar("R")

QUERY_TILE = 1024
KEY_TILE = 4096
GROUP = 32


def search(
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
    exact_q, exact_k = _checked(queries), _checked(keys)
    small, dim = len(keys) >= KEY_TILE and has_int8(), queries.shape[1]
    tiles, rounded, error_q, error_k, scale = [], exact_q, np.zeros(len(queries)), 0.0, 1.0
    plain = np.arange(len(keys))
    if small:
        steps, error = _rounded(exact_k)
        clipped = error > 1.2 * _step(dim) * (dim / 12) ** 0.5  # beyond what rounding alone does
        plain, even = plain[clipped], plain[~clipped]
        tiles = [
            _Keys(torch.from_numpy(steps[part].T.copy()), torch.from_numpy(part)) for part in _parts(even)
        ]
        error_k, scale = float(error[even].max(initial=0.0)), _step(dim) ** 2
        rounded, error_q = _rounded(exact_q)
    tiles += [
        _Keys(torch.from_numpy(exact_k[part].T.copy()), torch.from_numpy(part)) for part in _parts(plain)
    ]
    # |q'k' - qk| <= |q'-q| |k'| + |q| |k'-k|, and float32 rounds the turn and the products
    slack = 2.0 * (error_q * (1.0 + error_k) + error_k + dim * 2.0**-21)

    @torch.inference_mode()
    def tile(start: int) -> R:
        rows = slice(start, start + QUERY_TILE)
        forms = {
            torch.int8: (torch.from_numpy(rounded[rows]), scale),
            torch.float32: (torch.from_numpy(exact_q[rows]), 1.0),
        }
        row, column = _candidates(forms, tiles, torch.from_numpy(slack[rows]).float(), bound, keep, len(keys))
        return finish(start, row, column, _cosines(exact_q[rows], exact_k, row, column))

    starts, threads = range(0, len(queries), QUERY_TILE), torch.get_num_threads()
    if threads == 1 or len(starts) == 1:
        return [tile(start) for start in starts]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(tile, starts))
    finally:
        torch.set_num_threads(threads)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of `vectors` `(n, d)` scaled to length one, float32; zero rows stay zero."""
    out = np.empty(vectors.shape, dtype=np.float32)
    for start in range(0, len(vectors), 8192):
        part = vectors[start : start + 8192].astype(np.float64)
        length = np.sqrt(np.einsum("ij,ij->i", part, part))[:, None]
        out[start : start + 8192] = np.divide(part, length, out=np.zeros_like(part), where=length != 0)
    return out


@dataclass(frozen=True)
class _Keys:
    """Keys `(d, n)` that are multiplied at a time, as they are or in 8 bits, and their ids `(n,)`."""

    columns: Tensor
    ids: Tensor


def _checked(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors, float32."""
    vectors = unit(np.asarray(vectors))
    if not np.isfinite(vectors).all():
        raise ValueError("vectors must be finite")
    if not vectors.any(axis=1).all():
        raise ValueError("a zero vector has no cosine; leave it out")
    return vectors


def _rounded(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors `(n, d)` turned and rounded, int8 `(n, d + padding)`, and how far each moved `(n,)`."""
    count, dim = vectors.shape
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((dim, dim)))[0].astype(np.float32)
    steps = np.zeros((count, -(-dim // 64) * 64), dtype=np.int8)  # multiples of 64 are fast
    error = np.empty(count)
    for start in range(0, count, 8192):
        turned = vectors[start : start + 8192] @ turn
        whole = np.clip(np.rint(turned / _step(dim)), -127, 127)
        steps[start : start + 8192, :dim] = whole
        error[start : start + 8192] = np.linalg.norm(turned - whole * np.float32(_step(dim)), axis=1)
    return steps, error


def _step(dim: int) -> float:
    return 4.0 / (127.0 * dim**0.5)  # after the turn, few components exceed four deviations


def _parts(ids: np.ndarray) -> list[np.ndarray]:
    return [ids[start : start + KEY_TILE] for start in range(0, len(ids), KEY_TILE)]


def _candidates(
    forms: dict[Any, tuple[Tensor, float]],
    tiles: list[_Keys],
    slack: Tensor,
    bound: Callable[[Tensor], Tensor],
    keep: int,
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Row and key of all pairs at most `slack` below the bound, sorted.

    Args:
        forms: Queries and the factor of their products, for keys of either type.
        tiles: All keys.
        slack: `(rows,)` twice the largest error of a product.
        bound: Lower bound of the threshold from the best values seen.
        keep: How many best values it needs.
        size: Number of keys.
    """
    import torch

    lowest = torch.full((len(slack),), -4.0)
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    pool: list[Tensor] = []

    def raised() -> Tensor:
        joined = torch.cat(pool, dim=1)
        pool[:] = [joined.topk(min(keep, joined.shape[1]), dim=1).values]
        return torch.maximum(lowest, bound(pool[0]))

    for number, keys in enumerate(tiles, start=1):
        queries, scale = forms[keys.columns.dtype]
        multiply = torch._int_mm if queries.dtype == torch.int8 else torch.mm
        groups = _grouped(multiply(queries, keys.columns))
        maxima = groups.amax(1) * scale
        pool.append(maxima)
        if number & (number - 1) == 0:  # at tiles 1, 2, 4, 8 ...: raising the bound costs a sort of the pool
            lowest = raised()
        row, column, value = _above(groups, maxima, scale, lowest - slack, len(keys.ids))
        found.append((row, keys.ids[column], value))
    limit = raised() - slack
    row, column, value = (torch.cat(item) for item in zip(*found))
    may = value >= limit[row]
    pair = (row[may] * size + column[may]).sort().values.numpy()
    return pair // size, pair % size


def _grouped(product: Tensor) -> Tensor:
    """One tile as `(rows, GROUP, groups)`, padded with impossible values."""
    count, width = product.shape
    if width % GROUP:
        padded = product.new_full((count, width + GROUP - width % GROUP), -(2**30))
        padded[:, :width] = product
        product = padded
    return product.view(count, GROUP, -1)


def _above(
    groups: Tensor, maxima: Tensor, scale: float, limit: Tensor, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of the entries of one tile at or above their row's limit."""
    row, group = (maxima >= limit[:, None]).nonzero(as_tuple=True)
    members = groups[row, :, group] * scale  # (hits, GROUP); member i of group g is column i * groups + g
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


@cache
def has_int8() -> bool:
    """Whether this processor multiplies 8-bit integers fast, and exactly (older ones saturate)."""
    import torch

    probe = getattr(torch.cpu, "_is_vnni_supported", None) or getattr(
        torch.cpu, "_is_avx512_vnni_supported", None
    )
    if not hasattr(torch, "_int_mm") or probe is None or not probe():
        return False
    largest = torch.full((64, 64), 127, dtype=torch.int8)
    mixed = largest * torch.tensor([1, -1], dtype=torch.int8).repeat(32)
    pairs = ((largest, largest), (largest, -largest), (mixed, mixed), (-largest, mixed))
    return all(torch.equal(torch._int_mm(a, b.T).long(), a.long() @ b.T.long()) for a, b in pairs)
