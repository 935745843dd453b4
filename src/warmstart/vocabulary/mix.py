"""RowMix: one sparse matrix that fills input rows, head rows and head bias from the source's rows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy.sparse import csr_matrix

NoiseKind = Literal["normal", "mean", "gaussian", "uniform"]


@dataclass(frozen=True, slots=True)
class Noise:
    """Where rows without a mixture come from.

    Attributes:
        kind: `normal` draws each dimension from N(mu, sd) of the source rows; `mean` takes mu;
            `gaussian` draws from N(0, scale) and `uniform` from U(-scale, scale), whatever the source.
        scale: Deviation or half-width of the last two.
    """

    kind: NoiseKind = "normal"
    scale: float = 0.02

    def draw(self, count: int, mu: np.ndarray, sd: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`(count, d)` float64 rows; `mu` and `sd` have shape `(d,)`."""
        shape = (count, mu.shape[0])
        if self.kind == "mean":
            return np.broadcast_to(mu, shape)
        if self.kind == "uniform":
            return rng.uniform(-self.scale, self.scale, shape)
        noise = rng.standard_normal(shape)
        return noise * self.scale if self.kind == "gaussian" else mu + noise * sd


@dataclass(frozen=True)
class RowMix:
    """`E_t = W E_s`, with rows that have no mixture drawn from a fallback distribution.

    The same `W` fills the input embedding, the head and (as `b_t = W b_s`) the head bias, so that logits of
    a mixed token are the same mixture of the source's logits.

    Attributes:
        weights: `W`, sparse `(V_target, V_source)`; each row sums to one, or is empty.
        fallback: `(V_target,)` bool: rows drawn from `noise`.
        mean: `(V_target,)` bool: rows set to the mean source row: padding and unmatched special tokens.
            Random rows there would take probability from real tokens.
        noise: Distribution of the fallback rows.
    """

    weights: csr_matrix
    fallback: np.ndarray
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    noise: Noise = Noise()

    def __post_init__(self) -> None:
        if not self.mean.size:  # not given
            object.__setattr__(self, "mean", np.zeros(self.weights.shape[0], dtype=bool))

    @classmethod
    def from_entries(
        cls,
        shape: tuple[int, int],
        target: Sequence[int] | np.ndarray,
        source: Sequence[int] | np.ndarray,
        weight: Sequence[float] | np.ndarray | None = None,
        *,
        noise: Noise = Noise(),
    ) -> RowMix:
        """Build from triplets; repeated pairs add up, rows are scaled to sum one, untouched rows fall back.

        Args:
            shape: `(V_target, V_source)`.
            target: Target id of each entry.
            source: Source id of each entry.
            weight: Weight of each entry; all ones when not given.
            noise: Distribution of the rows without entries.
        """
        from scipy.sparse import csr_matrix, diags_array

        rows, columns = np.asarray(target, dtype=np.int64), np.asarray(source, dtype=np.int64)
        values = np.ones(len(rows)) if weight is None else np.asarray(weight, dtype=np.float64)
        matrix = csr_matrix((values, (rows, columns)), shape=shape)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        total = np.asarray(matrix.sum(axis=1)).ravel()
        scale = np.divide(1.0, total, out=np.zeros_like(total), where=total != 0)
        matrix = csr_matrix(diags_array(scale) @ matrix)
        return cls(matrix, np.diff(matrix.indptr) == 0, noise=noise)

    def check(self) -> RowMix:
        """Return self; raise `UserError` when a row neither sums to one nor is marked as filled otherwise."""
        count = self.weights.shape[0]
        if self.fallback.shape != (count,) or self.mean.shape != (count,):
            raise UserError(f"the masks of a row mix must have shape ({count},), got {self.fallback.shape}")
        if not np.isfinite(self.weights.data).all():
            raise UserError("the row mix contains weights that are not finite")
        total = np.asarray(self.weights.sum(axis=1), dtype=np.float64).ravel()
        filled, empty = ~(self.fallback | self.mean), np.diff(self.weights.indptr) == 0
        wrong = np.flatnonzero((filled & (np.abs(total - 1) > 1e-5)) | (~filled & ~empty))
        if len(wrong):
            row = int(wrong[0])
            raise UserError(f"{len(wrong)} rows of the mix are invalid; row {row} sums to {total[row]:.6g}")
        return self

    @property
    def copied(self) -> np.ndarray:
        """`(V_target,)` bool: rows that are one source row, unchanged."""
        single = np.diff(self.weights.indptr) == 1
        first = np.minimum(self.weights.indptr[:-1], max(self.weights.nnz - 1, 0))
        return single & (self.weights.data[first] == 1.0) if self.weights.nnz else single

    @property
    def mixed(self) -> np.ndarray:
        """`(V_target,)` bool: rows that are a true mixture."""
        return ~(self.copied | self.fallback | self.mean)

    def with_copies(self, pairs: np.ndarray) -> RowMix:
        """The same mix with the target rows of `pairs` `(n, 2)` (target id, source id) replaced by copies."""
        pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        fresh = self._cleared(pairs[:, 0])
        from scipy.sparse import csr_matrix

        ones = np.ones(len(pairs), dtype=self.weights.dtype)
        added = csr_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=self.weights.shape)
        fallback, mean = self.fallback.copy(), self.mean.copy()
        fallback[pairs[:, 0]] = mean[pairs[:, 0]] = False
        return replace(self, weights=csr_matrix(fresh + added), fallback=fallback, mean=mean)

    def with_mean(self, target_ids: np.ndarray) -> RowMix:
        """The same mix with these target rows set to the mean source row."""
        ids = np.asarray(target_ids, dtype=np.int64)
        fallback, mean = self.fallback.copy(), self.mean.copy()
        fallback[ids], mean[ids] = False, True
        return replace(self, weights=self._cleared(ids), fallback=fallback, mean=mean)

    def _cleared(self, ids: np.ndarray) -> csr_matrix:
        keep = np.ones(self.weights.shape[0], dtype=bool)
        keep[ids] = False
        matrix = self.weights.tocsr().copy()
        matrix.data *= np.repeat(keep, np.diff(matrix.indptr))
        matrix.eliminate_zeros()
        return matrix

    def apply(
        self,
        rows: np.ndarray,
        *,
        rng: np.random.Generator,
        noise: Noise | NoiseKind | None = None,
        reference: np.ndarray | None = None,
        norm_match: np.ndarray | None = None,
        which: Literal["input", "head"] = "input",
        block: int = 1024,
    ) -> np.ndarray:
        """Fill a target matrix from a source matrix.

        Computed over blocks of target rows in the precision of `rows`: only the source and the target ever
        exist whole. Copied rows are bit-equal to their source.

        Args:
            rows: Source rows `(V_source, d)`.
            rng: Source of the fallback rows.
            noise: Overrides the mix's own fallback distribution.
            reference: Source ids over which mean and deviation are taken (default: all); leave out padding.
            norm_match: `(V_target,)` labels; mixed rows are rescaled to the mean norm of copied rows with
                the same label (of all copied rows, else of the reference rows, where a label has none).
            which: What `rows` are; only `ComputedMix` may treat head rows differently.
            block: Target rows computed at a time.

        Returns:
            Target rows `(V_target, d)` in the dtype of `rows`.
        """
        if rows.shape[0] != self.weights.shape[1]:
            raise UserError(
                f"the mix is for {self.weights.shape[1]} source rows, the matrix has {rows.shape[0]}"
            )
        noise = Noise(noise) if isinstance(noise, str) else (noise or self.noise)
        drawn = self.fallback.any() or self.mean.any()
        mu, sd = moments(rows, reference) if drawn else (np.zeros(0), np.zeros(0))
        out = np.empty((self.weights.shape[0], rows.shape[1]), dtype=rows.dtype)
        copied, mixed = self.copied, self.mixed
        ids = np.flatnonzero(copied)
        for start in range(0, len(ids), block):
            part = ids[start : start + block]
            out[part] = rows[self.weights.indices[self.weights.indptr[part]]]
        ids = np.flatnonzero(mixed)
        for start in range(0, len(ids), block):
            part = ids[start : start + block]
            out[part] = self.weights[part].astype(rows.dtype) @ rows
        ids = np.flatnonzero(self.fallback)
        for start in range(0, len(ids), block):
            part = ids[start : start + block]
            out[part] = noise.draw(len(part), mu, sd, rng)
        if self.mean.any():
            out[self.mean] = mu
        self.fill(out, rows, which=which, reference=reference, rng=rng)
        if norm_match is not None:
            self._match_norms(out, rows, np.asarray(norm_match), reference)
        return out

    def fill(
        self,
        out: np.ndarray,
        rows: np.ndarray,
        *,
        which: Literal["input", "head"],
        reference: np.ndarray | None,
        rng: np.random.Generator,
    ) -> None:
        """Put rows that come from elsewhere than weights into `out`; a plain mix has none."""

    def apply_bias(self, bias: np.ndarray, *, reference: np.ndarray | None = None) -> np.ndarray:
        """Head bias `(V_target,)` from `(V_source,)` by the same weights; rows without mixture get the mean.

        A bias drawn at random would only add noise to the unigram distribution (IndoBERTweet,
        arXiv 2109.04607, likewise gives new types the mean bias).
        """
        mu = float(np.mean(bias if reference is None else bias[reference], dtype=np.float64))
        wide = self.weights @ bias.astype(np.float64)
        wide[self.fallback | self.mean] = mu
        out = wide.astype(bias.dtype)
        copied = np.flatnonzero(self.copied)
        out[copied] = bias[self.weights.indices[self.weights.indptr[copied]]]
        return out

    def _match_norms(
        self, out: np.ndarray, rows: np.ndarray, labels: np.ndarray, reference: np.ndarray | None
    ) -> None:
        norms, copied, mixed = row_norms(out), self.copied, self.mixed
        if copied.any():
            overall = float(norms[copied].mean())
        else:
            source = row_norms(rows)
            overall = float((source if reference is None else source[reference]).mean())
        for label in np.unique(labels):
            same = labels == label
            goal = float(norms[copied & same].mean()) if (copied & same).any() else overall
            ids = np.flatnonzero(mixed & same & (norms > 0))
            for start in range(0, len(ids), 4096):
                part = ids[start : start + 4096]
                out[part] = out[part] * (goal / norms[part])[:, None]

    def report(self, rows: np.ndarray, filled: np.ndarray) -> dict[str, float | int | None]:
        """Counts and mean norms per kind of row, before (`rows`) and after (`filled`)."""
        norms = row_norms(filled)
        kinds = {"copied": self.copied, "mixed": self.mixed, "fallback": self.fallback, "mean": self.mean}
        result: dict[str, float | int | None] = {"source_norm": float(row_norms(rows).mean())}
        for name, mask in kinds.items():
            result[f"{name}_rows"] = int(mask.sum())
            result[f"{name}_norm"] = float(norms[mask].mean()) if mask.any() else None
        counts = np.diff(self.weights.indptr)[self.mixed]
        result["sources_per_mixed_row"] = float(counts.mean()) if len(counts) else None
        return result


def moments(rows: np.ndarray, reference: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Per-dimension mean and deviation `(d,)`, float64, over rows `reference` (sorted ids; default all)."""
    count = rows.shape[0] if reference is None else len(reference)
    whole = reference is None or (count and reference[-1] == reference[0] + count - 1)  # ids are sorted
    start = 0 if reference is None or not count else int(reference[0])
    total, squares = np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    # one pass; the shift keeps the difference of squares from cancelling
    shift = rows[start : start + 1024].mean(axis=0) if count else total
    for begin in range(0, count, 2048):
        end = min(count, begin + 2048)
        part = rows[start + begin : start + end] if whole else rows[reference[begin:end]]  # type: ignore[index]
        moved = part - shift
        total += moved.sum(axis=0, dtype=np.float64)
        squares += np.square(moved).sum(axis=0, dtype=np.float64)
    mean = total / max(1, count)
    return shift + mean, np.sqrt(np.maximum(squares / max(1, count) - mean**2, 0.0))


def row_norms(rows: np.ndarray) -> np.ndarray:
    """Euclidean norm of each row `(V,)`, float64."""
    out = np.empty(rows.shape[0])
    for start in range(0, rows.shape[0], 8192):
        part = rows[start : start + 8192].astype(np.float64)
        out[start : start + 8192] = np.sqrt(np.einsum("ij,ij->i", part, part))
    return out
