"""WECHSEL: rows as mixtures of the nearest source tokens in a bilingual vector space."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.aux_space.anchors import anchor_pairs
from warmstart.vocabulary.aux_space.bilingual import WordVectorSettings
from warmstart.vocabulary.aux_space.binding import word_space
from warmstart.vocabulary.aux_space.compose import Composition, subword_space
from warmstart.vocabulary.aux_space.neighbours import nearest_by_cosine
from warmstart.vocabulary.aux_space.procrustes import align_spaces
from warmstart.vocabulary.aux_space.space import AuxSpace
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers


class WechselSettings(WordVectorSettings):
    """Options of `wechsel`."""

    compose: Composition = "auto"
    """How tokens get vectors from words: `words` (frequency-weighted mean over words that contain the token),
    `ngrams` (fastText's subword information), or `auto`: n-grams, and words for the tokens without any."""
    neighbours: int = Field(default=10, ge=1)
    """Source tokens mixed into one row."""
    temperature: float = Field(default=0.1, gt=0)
    """Weights are softmax(cosine / temperature)."""


@initialisers.register(
    "wechsel",
    settings=WechselSettings,
    title="WECHSEL: Effective initialization of subword embeddings for cross-lingual transfer of monolingual "
    "language models",
    arxiv="2112.06598",
    tags=("mix", "convex", "all-rows", "corpus", "bilingual"),
)
def wechsel(context: RowContext, settings: WechselSettings) -> RowMix:
    """`E_t[t] = sum_s w_s E_s[s]` over the k source tokens nearest to t, `w = softmax(cos / temperature)`.

    Word vectors of both languages are brought into one space by orthogonal Procrustes over a dictionary, and
    composed to token vectors. As published, overlapping tokens are mixtures too, even digits and
    punctuation; `copy_overlap: true` copies them. Tokens without a vector are drawn from N(mu, sd).

    Differences from the released code: source tokens without a vector are never neighbours (there, with few
    vectors, they can be); special tokens are mapped by role, not by string; where dimensions differ the
    wider space is reduced, whichever it is (there, only the source).

    Returns:
        Convex weights, `(V_target, V_source)`, at most `neighbours` per row.

    Raises:
        UserError: No text or vectors, no anchors, or no anchor with vectors on both sides.
    """
    source, target = bilingual_token_spaces(context, settings)
    return nearest_mix(
        context.shape,
        context.wanted,
        source,
        target,
        neighbours=settings.neighbours,
        temperature=settings.temperature,
    )


def nearest_mix(
    shape: tuple[int, int],
    wanted: np.ndarray,
    source: AuxSpace,
    target: AuxSpace,
    *,
    neighbours: int = 10,
    temperature: float = 0.1,
) -> RowMix:
    """Softmax mixtures of the nearest source tokens, for given token vectors in one space.

    Args:
        shape: `(V_target, V_source)`.
        wanted: Target ids to fill; those without a vector fall back to N(mu, sd).
        source: Vectors of source tokens, row index = token id.
        target: Vectors of target tokens, likewise.
        neighbours: Source tokens per row.
        temperature: Weights are softmax(cosine / temperature).

    Raises:
        UserError: No source token has a vector.
    """
    known = np.flatnonzero(source.known)
    if not len(known):
        raise UserError("no token of the source has a vector", where="source vectors")
    wanted = wanted[target.known[wanted]]
    keys = source.vectors if len(known) == len(source) else source.vectors[known]
    column, cosine = nearest_by_cosine(target.vectors[wanted], keys, neighbours)
    weight = np.exp((cosine - cosine[:, :1]) / temperature)
    return RowMix.from_entries(
        shape, np.repeat(wanted, column.shape[1]), known[column].ravel(), weight.ravel()
    )


def bilingual_token_spaces(
    context: RowContext, settings: WechselSettings, *, method: str = "wechsel", weighted: bool = True
) -> tuple[AuxSpace, AuxSpace]:
    """Vectors of all source tokens and of all target tokens in one space (row index = token id).

    Args:
        context: Of the initialiser.
        settings: Vectors, anchors and composition.
        method: Name of the initialiser, for errors.
        weighted: Whether words count by their frequency where they are composed to tokens.
    """
    files = {"source": settings.source_vectors, "target": settings.target_vectors}
    words = {
        side: word_space(context, method, side, file=files[side], training=settings.training)
        for side in files
    }
    source, target = (
        subword_space(words[side], tokenizer, compose=settings.compose, weighted=weighted)
        for side, tokenizer in (("source", context.source_tokenizer), ("target", context.target_tokenizer))
    )
    pairs = anchor_pairs(context, method, settings.anchors, words["source"], words["target"])
    if pairs is None:
        if source.dim != target.dim:
            raise UserError(
                f"the source vectors have {source.dim} dimensions, the target vectors {target.dim}",
                where=f"initialiser {method}",
                fix="with anchors: none both files must come from one space",
            )
        return source, target
    maps = align_spaces(
        words["source"],
        words["target"],
        pairs,
        centre=settings.centre,
        normalise=settings.normalise,
        where="dictionary",
    )
    return maps.source.apply(source), maps.target.apply(target)
