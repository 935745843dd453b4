"""OMP: a donor's rows written with few shared tokens, and the same recipe applied to the source's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.computed import ComputedMix, Which
from warmstart.vocabulary.mix import RowMix, row_norms
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.rows._donor import donor_rows
from warmstart.vocabulary.rows._samples import Samples, target_model

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


_TILE = 2048  # atoms whose products are computed at a time


class OmpSettings(Settings):
    """Options of `omp`."""

    donor: str
    """Model with the new tokenizer, of any width and architecture: folder, named source or hub id."""
    k: int = Field(default=64, ge=1)
    """Most shared tokens in one row; a donor of width f can use f at most."""
    tolerance: float = Field(default=1e-3, ge=0)
    """A row is finished when its residual is shorter than this share of it; what follows would fit noise."""
    atoms: Literal["unit", "raw"] = "unit"
    """`unit`: the shared token with the largest cosine to the residual is next, which defines the method.
    `raw`: the one with the largest product, which favours long rows, as in mergekit."""
    head: Literal["own", "input"] = "own"
    """Coefficients of an untied head: fitted on the donor's head rows where it has its own, or those of the
    input rows."""


@dataclass(frozen=True)
class SparseRows:
    """Rows as given combinations of source rows; unlike in a mix, the coefficients need not sum to one.

    Attributes:
        ids: `(n,)` target ids, ascending.
        source: `(m,)` source ids of the shared tokens.
        coefficients: Sparse `(n, m)`, for input and head rows.
    """

    ids: np.ndarray
    source: np.ndarray
    coefficients: dict[Which, csr_matrix]

    def __call__(self, ids: np.ndarray, rows: np.ndarray, *, which: Which, **_: object) -> np.ndarray:
        """`(len(ids), d)` rows in the precision of `rows`."""
        known, place = rows[self.source], np.searchsorted(self.ids, ids)
        out = np.empty((len(ids), rows.shape[1]), dtype=rows.dtype)
        for start in range(0, len(ids), 1024):
            out[start : start + 1024] = self.coefficients[which][place[start : start + 1024]] @ known
        return out


@initialisers.register(
    "omp",
    settings=OmpSettings,
    title="Training-Free Tokenizer Transplantation via Orthogonal Matching Pursuit",
    arxiv="2506.06607",
    tags=("dense", "helper"),
)
def omp(context: RowContext, settings: OmpSettings) -> RowMix:
    """`E_t[n] = sum_o c_o E_s[o]`, c at most k coefficients with `D[n] ~ sum_o c_o D[o]` in a donor D.

    The donor is a model that already has the new tokenizer; its rows of shared tokens are the atoms with
    which its other rows are rebuilt. Orthogonal Matching Pursuit picks the atom nearest to the residual,
    fits all picked ones anew by least squares, and goes on. The idea of mergekit's token surgeon.

    Coefficients may be negative and do not sum to one, so this is no mixture of the source's rows: it
    assumes that both models arrange shared tokens alike up to a linear map, and keeps the row's length.
    As in token surgeon an untied head has coefficients of its own, where the donor's head is untied as well.
    The search costs 2 f k operations per new and shared token: 18 milliseconds of one core for each new
    token at 20,000 shared ones, width 512 and k = 64.

    Differences from the released code: atoms count by cosine, not by product with their length (`atoms:
    raw`); a row that is finished stops, and an atom that depends on the others is not divided by almost
    nothing; tokens are compared by bytes and word start. Rows that the donor lacks are drawn from N(mu, sd).

    Returns:
        A mix whose new rows hold no weights but such combinations, `(V_target, V_source)`; the head bias of
        new tokens is the mean bias.

    Raises:
        UserError: The donor's tokenizer is not the new one, or no shared token has a row in it.
    """
    donor = donor_rows(context, settings.donor, setting="donor")
    known = np.asarray(donor.rows.any(axis=1))
    anchors = context.vocab.matched[known[context.vocab.matched[:, 0]]]
    if not len(anchors):
        raise UserError(
            "the new tokenizer shares no token with the donor",
            where="initialiser omp",
            fix="use mean-of-pieces, which needs no shared tokens",
        )
    wanted = np.sort(context.wanted[known[context.wanted]])

    def fitted(rows: np.ndarray) -> csr_matrix:
        return pursuit(
            rows[wanted],
            rows[anchors[:, 0]],
            settings.k,
            tolerance=settings.tolerance,
            unit_atoms=settings.atoms == "unit",
        )

    same = fitted(donor.rows)
    coefficients: dict[Which, csr_matrix] = {"input": same, "head": same}
    if settings.head == "own" and context.head_rows is not None and donor.head is not None:
        coefficients["head"] = fitted(donor.head)
    return ComputedMix.of(context.shape, wanted, SparseRows(wanted, anchors[:, 1], coefficients))


def pursuit(
    goals: np.ndarray,
    atoms: np.ndarray,
    k: int,
    *,
    tolerance: float = 1e-3,
    unit_atoms: bool = True,
    memory: int = 1 << 28,
) -> csr_matrix:
    """Orthogonal Matching Pursuit of many vectors at once.

    The picked atoms of each goal are kept as an orthogonal basis (Gram-Schmidt, done twice, which is exact to
    rounding) beside its triangular factor, so a step adds one vector and the coefficients follow at the end
    from one triangular system. The scan over all atoms is one matrix product per step and block, in the
    precision of `atoms`; everything else is float64.

    Args:
        goals: `(n, f)` vectors to rebuild.
        atoms: `(m, f)` vectors to rebuild them from.
        k: Most atoms per goal.
        tolerance: A goal is finished when its residual is shorter than this share of its length.
        unit_atoms: Pick by cosine rather than by product.
        memory: Bytes for the bases and products of one block of goals, about.

    Returns:
        Coefficients `(n, m)`, at most `min(k, m, f)` per row.
    """
    from scipy.sparse import csr_matrix

    k = min(k, *atoms.shape)
    length = row_norms(atoms)
    scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)
    factor = (scale if unit_atoms else (length > 0)).astype(atoms.dtype)
    # bases are copied while some goals are finished and others not
    step = max(1, memory // (16 * k * (atoms.shape[1] + k) + 2 * atoms.itemsize * _TILE))
    parts = [
        _pursue(goals[start : start + step].astype(np.float64), atoms, factor, k, tolerance)
        for start in range(0, len(goals), step)
    ]
    counts = np.concatenate([np.zeros(1, np.int64), *(part[0] for part in parts)])
    column = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
    value = np.concatenate([np.empty(0), *(part[2] for part in parts)])
    return csr_matrix((value, column, np.cumsum(counts)), shape=(len(goals), len(atoms)))


def _pursue(
    goals: np.ndarray, atoms: np.ndarray, factor: np.ndarray, k: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts per goal, and atoms and coefficients of all goals one after the other."""
    count, width = goals.shape
    basis, triangle = np.zeros((count, k, width)), np.zeros((count, k, k))
    share, picked, size = np.zeros((count, k)), np.zeros((count, k), np.int64), np.zeros(count, np.int64)
    residual, enough = goals.copy(), tolerance * np.linalg.norm(goals, axis=1)
    open_ = np.flatnonzero(np.linalg.norm(residual, axis=1) > enough)
    for turn in range(k):
        if not len(open_):
            break
        # all open ones have `turn` atoms
        choice = _nearest(residual[open_].astype(atoms.dtype), atoms, factor, picked[open_, :turn])
        vector = atoms[choice].astype(np.float64)
        fresh, inner = vector, np.zeros((len(open_), turn))
        found = basis[:, :turn] if len(open_) == count else basis[open_, :turn]
        for _ in range(2):
            along = (found @ fresh[:, :, None])[:, :, 0]
            fresh = fresh - (along[:, None, :] @ found)[:, 0]
            inner += along
        norm = np.linalg.norm(fresh, axis=1)
        new = norm > 1e-6 * np.linalg.norm(vector, axis=1)  # else it depends on the picked ones
        open_, choice, fresh, inner, norm = open_[new], choice[new], fresh[new], inner[new], norm[new]
        basis[open_, turn] = fresh / norm[:, None]
        triangle[open_, :turn, turn], triangle[open_, turn, turn] = inner, norm
        share[open_, turn] = np.einsum("bf,bf->b", basis[open_, turn], residual[open_])
        residual[open_] -= share[open_, turn, None] * basis[open_, turn]
        picked[open_, turn], size[open_] = choice, turn + 1
        open_ = open_[np.linalg.norm(residual[open_], axis=1) > enough[open_]]
    used = np.arange(k) < size[:, None]
    triangle[:, np.arange(k), np.arange(k)] += ~used  # unused rows become those of the identity
    solved = np.linalg.solve(triangle, share[:, :, None])[:, :, 0]
    return size, picked[used], solved[used]


def _nearest(residual: np.ndarray, atoms: np.ndarray, factor: np.ndarray, picked: np.ndarray) -> np.ndarray:
    """Index `(n,)` of the atom with the largest product by size, those `picked` `(n, t)` left out.

    In tiles of atoms, whose products stay in the cache: moving all of them at once took over half as long
    as computing them. Of equal ones the first counts.
    """
    count = len(residual)
    choice, best = np.zeros(count, np.int64), np.full(count, -1.0, atoms.dtype)
    room = np.empty(count * _TILE, atoms.dtype)
    for start in range(0, len(atoms), _TILE):
        part = atoms[start : start + _TILE]
        product = np.matmul(residual, part.T, out=room[: count * len(part)].reshape(count, len(part)))
        product *= factor[start : start + _TILE]
        np.abs(product, out=product)
        row, turn = np.nonzero((picked >= start) & (picked < start + len(part)))
        product[row, picked[row, turn] - start] = -1.0
        column = product.argmax(axis=1)
        value = product[np.arange(count), column]
        higher = value > best
        choice[higher], best[higher] = start + column[higher], value[higher]
    return choice


omp.contract_settings = Samples(donor=target_model)  # type: ignore[attr-defined]
