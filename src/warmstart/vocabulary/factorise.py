"""Factorised embeddings: `E = F P` with narrow coordinates F per token and primitives P shared by all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from warmstart.foundation.errors import UserError


@dataclass(frozen=True)
class Factors:
    """`E ~ coordinates @ primitives`.

    Attributes:
        coordinates: `F` `(V, rank)`, one row per token: what an initialiser mixes.
        primitives: `P` `(rank, d)`.
    """

    coordinates: np.ndarray
    primitives: np.ndarray

    @property
    def rank(self) -> int:
        """Width of the coordinates."""
        return int(self.primitives.shape[0])

    def rows(self, ids: np.ndarray | None = None) -> np.ndarray:
        """The rows `(V, d)`, or those of `ids`."""
        chosen = self.coordinates if ids is None else self.coordinates[ids]
        return np.asarray(chosen @ self.primitives)


def factorise(
    rows: np.ndarray, rank: int, *, split: Literal["balanced", "raw"] = "balanced", block: int = 4096
) -> Factors:
    """The best factors of a matrix: `E ~ U S V' = (U S^1/2)(S^1/2 V')`, cut to the largest `rank` values.

    With `rank` the width of the matrix they reproduce it; mixing rows of F and multiplying by P is the same
    as mixing rows of `F P`, since both are linear. So a low rank changes the number of parameters and how
    they train, not what an initialiser does. OFA, arXiv 2311.08849.

    The released code splits `U` and `S V'` (`raw`): rows of F then have norms near `(rank / V)^1/2`, tiny
    beside those of P, and one learning rate cannot serve both. The balanced split gives both factors the
    same singular values.

    V and S come from the Gram matrix `(d, d)`, added up block by block, and F from `E V`, so that nothing of
    the size of E exists but E and F. The product does not depend on how exact S is.

    Args:
        rows: `E` `(V, d)`.
        rank: Width of F, at most d.
        split: See above.
        block: Rows handled at a time.

    Returns:
        Factors in the dtype of `rows`.

    Raises:
        UserError: A rank that is not within 1..d.
    """
    width = rows.shape[1]
    if not 1 <= rank <= width:
        raise UserError(
            f"a rank of {rank} is not possible for rows of width {width}", fix=f"choose 1 to {width}"
        )
    gram = np.zeros((width, width))
    for start in range(0, len(rows), block):
        part = rows[start : start + block].astype(np.float64)
        gram += part.T @ part
    squared, axes = np.linalg.eigh(gram)  # ascending
    axes = axes[:, ::-1][:, :rank]
    value = np.sqrt(np.maximum(squared[::-1][:rank], 0.0))
    value = np.where(value > 1e-12 * max(value[0], 1e-300), value, 1.0)  # directions in which E is zero
    outer, inner = (value**-0.5, value**0.5) if split == "balanced" else (1 / value, value)
    left = axes * outer
    coordinates = np.empty((len(rows), rank), dtype=rows.dtype)
    for start in range(0, len(rows), block):
        coordinates[start : start + block] = rows[start : start + block].astype(np.float64) @ left
    return Factors(coordinates, np.ascontiguousarray((axes * inner).T, dtype=rows.dtype))


def energy_kept(rows: np.ndarray, factors: Factors, *, block: int = 4096) -> float:
    """`|F P|^2 / |E|^2`, the share of the rows' squared length that the factors keep; 1 for rows of zero.

    The numerator is the trace of `(F' F)(P P')`, so `F P` is never made.
    """
    total, inner = 0.0, np.zeros((factors.rank, factors.rank))
    for start in range(0, len(rows), block):
        total += float(np.square(rows[start : start + block], dtype=np.float64).sum())
        part = factors.coordinates[start : start + block].astype(np.float64)
        inner += part.T @ part
    primitives = factors.primitives.astype(np.float64)
    kept = float(np.sum(inner * (primitives @ primitives.T)))
    return kept / total if total > 0 else 1.0
