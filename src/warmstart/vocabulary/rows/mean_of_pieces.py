"""The mean of the old tokenizer's pieces: the strongest initialiser that needs no data."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers


class MeanOfPiecesSettings(Settings):
    """Options of `mean-of-pieces`."""

    position_slope: float = Field(default=0.0, ge=-10, le=10)
    """Piece i of k weighs exp(slope · i). 0 is the plain mean; positive values favour the last piece, which
    has read the whole word (good for input rows), negative ones the first (good for head rows)."""


@initialisers.register(
    "mean-of-pieces",
    settings=MeanOfPiecesSettings,
    title="IndoBERTweet: A Pretrained Language Model for Indonesian Twitter with Effective Domain-Specific "
    "Vocabulary Initialization",
    arxiv="2109.04607",
    tags=("mix", "convex"),
)
def mean_of_pieces(context: RowContext, settings: MeanOfPiecesSettings) -> RowMix:
    """`E_t[n] = mean of E_s[p]` over the pieces p into which the old tokenizer cuts the text of n.

    The text is cut inside running text (no stray space piece), a continuation `##xyz` into continuation
    pieces only, and bytes that are not UTF-8 at byte level; see
    [`VocabMap.pieces`][warmstart.vocabulary.map.VocabMap.pieces]. Tokens that the source cannot write, such
    as an unknown script in a WordPiece vocabulary, are drawn from N(mu, sd). Released codes decompose the
    raw vocabulary string instead, which adds a space piece or a word-initial first piece.

    Returns:
        Convex weights, `(V_target, V_source)`; a piece that occurs twice weighs twice.
    """
    pieces = context.vocab.pieces_all()
    ids = [int(i) for i in context.wanted if pieces[i]]
    target = np.repeat(np.array(ids, dtype=np.int64), [len(pieces[i]) for i in ids])
    source = [piece for i in ids for piece in pieces[i]]
    weight = [w for i in ids for w in _weights(len(pieces[i]), settings.position_slope)]
    return RowMix.from_entries(context.shape, target, source, weight)


def _weights(count: int, slope: float) -> np.ndarray:
    exponent = slope * np.arange(count)
    return np.exp(exponent - exponent.max())
