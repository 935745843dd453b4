"""CLP-Transfer: rows mixed by the similarities in a small model that already has the new tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.aux_space.neighbours import nearest_by_cosine
from warmstart.vocabulary.aux_space.tiles import unit
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.rows._donor import donor_rows
from warmstart.vocabulary.rows._samples import Samples, target_model


class ClpSettings(Settings):
    """Options of `clp`."""

    helper: str
    """Model with the new tokenizer, of any width and architecture: folder, named source or hub id."""
    weights: Literal["cosine", "softmax"] = "cosine"
    """`cosine`: proportional to the cosine, negative ones as zero. `softmax`: to exp(cosine/temperature)."""
    temperature: float = Field(default=0.1, gt=0)
    """Of `softmax`."""
    top_k: int | None = Field(default=None, ge=1)
    """Shared tokens mixed into one row; all of them as published, which makes rows nearly equal."""


@dataclass(frozen=True)
class SimilarityRows:
    """Rows as mixtures of all anchors, weighed by cosines: one product per block of rows.

    The weights of 50,000 tokens over 30,000 anchors would take gigabytes, so they are not kept.

    Attributes:
        vectors: `(V_target, f)` unit vectors of the helper.
        anchors: `(n, 2)` pairs (target id, source id).
        settings: How cosines become weights.
    """

    vectors: np.ndarray
    anchors: np.ndarray
    settings: ClpSettings

    def __call__(self, ids: np.ndarray, rows: np.ndarray, **_: object) -> np.ndarray:
        """The mixtures `(len(ids), d)`, in the precision of `rows`."""
        keys, known = self.vectors[self.anchors[:, 0]].T, rows[self.anchors[:, 1]]
        out = np.empty((len(ids), rows.shape[1]), dtype=rows.dtype)
        step = max(1, (1 << 24) // keys.shape[1])  # at most 64 MB of weights at a time
        for start in range(0, len(ids), step):
            weight = weights_of(self.vectors[ids[start : start + step]] @ keys, self.settings)
            out[start : start + step] = weight.astype(rows.dtype) @ known
        return out


@initialisers.register(
    "clp",
    settings=ClpSettings,
    title="Efficient Language Model Training through Cross-Lingual and Progressive Transfer Learning",
    arxiv="2301.09626",
    tags=("dense", "helper"),
)
def clp(context: RowContext, settings: ClpSettings) -> RowMix:
    """`E_t[n] = sum_o w_o E_s[o]`, `w_o` proportional to `max(0, cos(H[n], H[o]))` over the shared tokens o.

    H are the input rows of a small model of the target language, which lends nothing but its similarities:
    the large source keeps its width. As published all shared tokens enter; with thousands of them the
    weights are almost uniform and new rows lie close to the mean of the overlap, with a small tilt. `top_k`
    or `weights: softmax` sharpen them. Tokens without a row in the helper are drawn from N(mu, sd).

    Differences from the released code: negative cosines count as zero (there they stay, and a sum near zero
    inflates the row; a token without any positive one gets the mean of the overlap); tokens are compared by
    bytes and word start, not by raw strings; an untied head is filled by the same weights (there it is not
    written). Training the helper is not free: charge its cost to the transfer.

    Returns:
        Convex mixtures, `(V_target, V_source)`: weights with `top_k`, else computed in blocks (then the
        head bias of new tokens is the mean bias).

    Raises:
        UserError: The helper's tokenizer is not the new one, or no shared token has a row in it.
    """
    donor = donor_rows(context, settings.helper, setting="helper")
    vectors = unit(donor.rows)
    known = np.asarray(vectors.any(axis=1))
    anchors = context.vocab.matched[known[context.vocab.matched[:, 0]]]
    if not len(anchors):
        raise UserError(
            "the new tokenizer shares no token with the source's",
            where="initialiser clp",
            fix="use mean-of-pieces, which needs no shared tokens",
        )
    wanted = context.wanted[known[context.wanted]]
    if settings.top_k is None:
        return ComputedMix.of(context.shape, wanted, SimilarityRows(vectors, anchors, settings))
    column, cosine = nearest_by_cosine(vectors[wanted], vectors[anchors[:, 0]], settings.top_k)
    weight = weights_of(cosine, settings)
    row = np.repeat(wanted, column.shape[1])
    return RowMix.from_entries(context.shape, row, anchors[column.ravel(), 1], weight.ravel())


def weights_of(cosine: np.ndarray, settings: ClpSettings) -> np.ndarray:
    """Weights `(n, m)` of cosines `(n, m)`; each row sums to one, uniform where no cosine is positive."""
    if settings.weights == "softmax":
        weight = np.exp((cosine - cosine.max(axis=1, keepdims=True)) / settings.temperature)
    else:
        weight = np.maximum(cosine, 0)
        weight[~weight.any(axis=1)] = 1
    return weight / weight.sum(axis=1, keepdims=True)


clp.contract_settings = Samples(helper=target_model)  # type: ignore[attr-defined]
