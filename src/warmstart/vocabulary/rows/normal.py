"""Random rows on the scale of the trained ones."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from warmstart.foundation.settings import Settings
from warmstart.vocabulary.mix import Noise, RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers


class NormalSettings(Settings):
    """`normal` has no options."""


@initialisers.register(
    "normal",
    settings=NormalSettings,
    title="Rows from the per-dimension mean and deviation of the trained rows",
    arxiv="2109.04607",
    tags=("fallback",),
)
def normal(context: RowContext, settings: NormalSettings) -> RowMix:
    """`E_t[n] ~ N(mu, diag(sd²))`, with mu and sd per dimension over the source rows that a token uses.

    The strongest initialisation that knows nothing about the new tokens; also what WECHSEL, FOCUS and OFA
    fall back to. Overlapping rows are copied unless `copy_overlap` is false. An untied head gets its own
    draw from the head's moments. IndoBERTweet (arXiv 2109.04607) compares it with the mean of pieces.

    Returns:
        A mix without weights, all rows fallback. Shape `(V_target, V_source)`.
    """
    count, width = context.shape
    return RowMix(csr_matrix((count, width)), np.ones(count, dtype=bool), noise=Noise("normal"))
