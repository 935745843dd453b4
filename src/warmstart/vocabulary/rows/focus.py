"""FOCUS: new rows as sparse mixtures of copied rows, by similarity in vectors of the target text."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.aux_space.binding import target_token_space
from warmstart.vocabulary.aux_space.compose import Composition
from warmstart.vocabulary.aux_space.neighbours import sparsemax_by_cosine
from warmstart.vocabulary.aux_space.space import AuxSpace
from warmstart.vocabulary.aux_space.train import StaticSettings
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers


class FocusSettings(Settings):
    """Options of `focus`."""

    vectors: str | None = None
    """File of given vectors (.vec, .vec.gz, .bin, .npz) of target tokens, or of words, which are then
    composed to tokens. Without it vectors are trained on the target text."""
    training: StaticSettings = StaticSettings()
    """How vectors are trained: fastText CBOW on the text cut by the new tokenizer."""
    compose: Composition = "auto"
    """How tokens get vectors where the vectors are of words: `words`, `ngrams`, or `auto`."""
    scale: float = Field(default=1.0, gt=0)
    """Factor on the cosines before sparsemax. 1 is FOCUS as published, whose mixtures often have tens of
    sources and are blurred; larger values sharpen them."""


@initialisers.register(
    "focus",
    settings=FocusSettings,
    title="FOCUS: Effective Embedding Initialization for Specializing Pretrained Multilingual Models on a "
    "Single Language",
    arxiv="2305.14481",
    tags=("mix", "convex", "corpus"),
)
def focus(context: RowContext, settings: FocusSettings) -> RowMix:
    """`E_t[n] = sum_o w_o E_s[o]`, `w = sparsemax(scale * cos(phi(n), phi(o)))` over overlapping tokens o.

    The vectors phi are trained on the target text cut by the target tokenizer, so that no second language is
    needed. Anchors are the overlapping tokens that have a vector; new tokens without one (seen fewer than
    `min_count` times) are drawn from N(mu, sd). Overlapping rows are copied.

    Differences from the released code: tokens are compared by bytes and word start, not by decoded and
    stripped text; where several source tokens qualify the lowest id wins (there, the highest); the same
    weights fill an untied head and the head bias (there, one runs it twice). With `copy_overlap: false`
    overlapping tokens are mixed as well.

    Returns:
        Convex weights, `(V_target, V_source)`.

    Raises:
        UserError: No text or vectors, or no overlapping token has a vector.
    """
    space = target_token_space(
        context, "focus", file=settings.vectors, training=settings.training, compose=settings.compose
    )
    return anchored_mix(context.shape, context.wanted, context.vocab.matched, space, scale=settings.scale)


def anchored_mix(
    shape: tuple[int, int], wanted: np.ndarray, anchors: np.ndarray, space: AuxSpace, *, scale: float = 1.0
) -> RowMix:
    """Sparsemax mixtures of anchor tokens, for given vectors of target tokens.

    Args:
        shape: `(V_target, V_source)`.
        wanted: Target ids to fill; those without a vector fall back to N(mu, sd).
        anchors: `(n, 2)` pairs (target id, source id) of shared tokens; those without a vector do not count.
        space: Vectors of target tokens, row index = token id.
        scale: Factor on the cosines.

    Raises:
        UserError: No anchor has a vector.
    """
    anchors = anchors[space.known[anchors[:, 0]]]
    if not len(anchors):
        raise UserError(
            "no token that both vocabularies share has a vector",
            where="initialiser focus",
            fix="give more target text, lower training.min_count, or use mean-of-pieces",
        )
    wanted = wanted[space.known[wanted]]
    mix = sparsemax_by_cosine(space.vectors[wanted], space.vectors[anchors[:, 0]], scale)
    row = np.repeat(wanted, np.diff(mix.indptr))
    return RowMix.from_entries(shape, row, anchors[mix.indices, 1], mix.data)
