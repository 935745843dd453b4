"""EigenNoise: rows from nothing but the frequency ranks of tokens, by way of Zipf's law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.mix import RowMix, moments
from warmstart.vocabulary.rows._base import RowContext, initialisers

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class EigenNoiseSettings(Settings):
    """Options of `eigen-noise`."""

    ranks: Literal["auto", "corpus", "ids"] = "auto"
    """Frequency ranks of tokens: counted in the target text, or the order of ids (BPE merges and Unigram
    scores fall roughly with frequency). `auto`: counted where there is text."""
    window: int = Field(default=5, ge=1)
    """Tokens on each side that count as co-occurring."""
    rotate: bool = True
    """Turn the vectors at random, so that the few large eigenvalues are spread over all dimensions; angles
    and lengths stay."""
    max_bytes: int = Field(default=20_000_000, ge=1)
    """UTF-8 bytes of text counted at most."""


@dataclass(frozen=True)
class RankRows:
    """Vectors of ranks, with the mean and deviation of the source's rows.

    Attributes:
        rank: `(V_target,)` rank of each target token from 1 on, 0 for those without text.
        window: Of the co-occurrence model.
        rotate: Whether to turn the vectors at random.
    """

    rank: np.ndarray
    window: int
    rotate: bool

    def __call__(
        self,
        ids: np.ndarray,
        rows: np.ndarray,
        *,
        reference: np.ndarray | None,
        rng: np.random.Generator,
        **_: object,
    ) -> np.ndarray:
        """`(len(ids), d)` rows in the precision of `rows`."""
        width = rows.shape[1]
        vectors = rank_vectors(int(self.rank.max()), width, window=self.window)
        if self.rotate:
            turn, triangle = np.linalg.qr(rng.standard_normal((width, width)))
            vectors = vectors @ (turn * np.sign(np.diag(triangle)))  # the sign makes it uniform
        mu, sd = moments(rows, reference)
        centred = vectors - vectors.mean(axis=0)
        spread = np.sqrt(np.square(centred).mean())
        scale = np.sqrt(np.square(sd).mean()) / spread if spread > 0 else 0.0
        return np.asarray(mu + scale * centred[self.rank[ids] - 1]).astype(rows.dtype)


@initialisers.register(
    "eigen-noise",
    settings=EigenNoiseSettings,
    title="EigenNoise: A Contrastive Prior to Warm-Start Representations",
    arxiv="2205.04530",
    tags=("dense", "fallback", "all-rows"),
)
def eigen_noise(context: RowContext, settings: EigenNoiseSettings) -> RowMix:
    """`E_t[n] = mu + s (v_r - mean v)`, `v_r` the row of an eigendecomposition at the frequency rank r of n.

    The co-occurrences of independent words with Zipfian frequencies within a window m are
    `X_ij = 2 m N / (r_i r_j H_N)`; X itself has rank one and its logarithm rank two. That every pair
    co-occurs at least once, as the author assumes, adds the structure: the vectors come from
    `log max(1, X)`, see [`rank_vectors`][warmstart.vocabulary.rows.eigen_noise.rank_vectors].

    The factor s gives all rows together the deviation of the source's rows, mu is their mean. Nothing else
    of the source enters: a prior for a start without knowledge, to be compared with `normal` and `random`.
    Tokens so rare that they co-occur with none more than once share one row. Exact transform, scaling of
    eigenvalues, window and width are not stated where we read about the method: they are our choices.
    An overlapping token is not copied unless `copy_overlap` is set, since its old row knows nothing of these.

    Returns:
        A mix whose rows hold no weights but these vectors, `(V_target, V_source)`.

    Raises:
        UserError: `ranks: corpus` without text.
    """
    order = frequency_order(context, settings)
    rank = np.zeros(context.shape[0], dtype=np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    return ComputedMix.of(context.shape, context.wanted, RankRows(rank, settings.window, settings.rotate))


def frequency_order(context: RowContext, settings: EigenNoiseSettings) -> np.ndarray:
    """Ids of all text tokens, the most frequent first; equal ones by id."""
    ids = context.vocab.text_ids
    if settings.ranks == "ids" or (settings.ranks == "auto" and context.corpus is None):
        return np.sort(ids)
    corpus, counts = context.need("corpus", "eigen-noise"), np.zeros(context.shape[0], dtype=np.int64)
    left, held = settings.max_bytes, []
    for document in corpus.documents("train"):
        left -= len(document.text.encode())
        held.append(document.text)
        if len(held) == 256 or left <= 0:
            counts += _counts(context, held)
            held = []
        if left <= 0:
            break
    counts += _counts(context, held)
    return ids[np.lexsort((ids, -counts[ids]))]


def _counts(context: RowContext, texts: list[str]) -> np.ndarray:
    size = context.shape[0]
    if not texts:
        return np.zeros(size, dtype=np.int64)
    encoded = context.target_tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, verbose=False
    )
    return np.bincount(np.array([i for ids in encoded["input_ids"] for i in ids], np.int64), minlength=size)


def rank_vectors(size: int, width: int, *, window: int = 5) -> np.ndarray:
    """`v_i = |lambda_k|^1/2 q_ik` over the `width` eigenpairs of `log max(1, X)` with the largest `|lambda|`.

    Eigenvalues alternate in sign, hence the absolute values; each eigenvector is turned so that its largest
    entry is positive. The decomposition is exact and needs no iterations: of two ranks beyond the root q of
    `c = 2 m N / H_N` the product exceeds c, so the matrix is `[[A, B'], [B, 0]]` with A `(q, q)`. It has rank
    2 q at most (98 for N = 2,000 and m = 5, some 470 for N = 64,000), and with `B = Q R` its eigenvalues
    are those of `[[A, R'], [R, 0]]`; the lower part of an eigenvector is `B x / lambda`.

    Args:
        size: Number of ranks.
        width: Dimensions; those beyond the rank of the matrix stay zero.
        window: m of the co-occurrence model.

    Returns:
        `(size, width)` float64, row i for rank i + 1.
    """
    matrix = log_cooccurrence(size, window=window)
    root = int((matrix.diagonal() > 0).sum())
    upper, lower = matrix[:root, :root].toarray(), matrix[root:, :root]
    triangle = np.zeros((0, root))
    for start in range(0, lower.shape[0], 8192):
        stacked = np.vstack([triangle, lower[start : start + 8192].toarray()])
        triangle = np.asarray(np.linalg.qr(stacked, mode="r"))
    corner = np.zeros((len(triangle), len(triangle)))
    value, vector = np.linalg.eigh(np.block([[upper, triangle.T], [triangle, corner]]))
    order = np.argsort(-np.abs(value), kind="stable")[:width]
    order = order[np.abs(value[order]) > 1e-12 * np.abs(value).max()]  # below is numerical noise
    value, first = value[order], vector[:root, order]
    whole = np.concatenate([first, (lower @ first) / value])
    peak = whole[np.abs(whole).argmax(axis=0), np.arange(len(order))]
    out = np.zeros((size, width))
    out[:, : len(order)] = whole * np.sqrt(np.abs(value)) * np.where(peak < 0, -1.0, 1.0)
    return out


def log_cooccurrence(size: int, *, window: int = 5) -> csr_matrix:
    """`log max(1, 2 m N / (r_i r_j H_N))` for ranks 1..N, symmetric `(N, N)`.

    Only pairs with `r_i r_j < 2 m N / H_N` are above zero: a hyperbola of about `c log c` entries for
    `c = 2 m N / H_N`, so a vocabulary of 250,000 tokens takes a few megabytes.
    """
    from scipy.sparse import csr_matrix

    rank = np.arange(1, size + 1)
    peak = 2 * window * size / (1 / rank).sum()
    length = np.minimum(size, np.ceil(peak / rank).astype(np.int64) - 1).clip(min=0)  # r_j < peak / r_i
    row = np.repeat(rank, length)
    column = np.arange(1, int(length.sum()) + 1) - np.repeat(np.cumsum(length) - length, length)
    value = np.log(peak) - np.log(row) - np.log(column)
    return csr_matrix((value, (row - 1, column - 1)), shape=(size, size))
