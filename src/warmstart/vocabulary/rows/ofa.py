"""OFA: copied rows, and mixtures of the nearest source tokens in a multilingual vector space."""

from __future__ import annotations

from warmstart.vocabulary.aux_space.compose import Composition
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.rows.wechsel import WechselSettings, bilingual_token_spaces, nearest_mix


class OfaSettings(WechselSettings):
    """Options of `ofa`: those of `wechsel`. One file of multilingual vectors given for both sides is taken
    as aligned; words in it must stand without a mark of their language."""

    compose: Composition = "words"
    """How tokens get vectors from words: `words` (plain mean over words that contain the token), `ngrams`
    (fastText's subword information), or `auto`: n-grams, and words for the tokens without any."""


@initialisers.register(
    "ofa",
    settings=OfaSettings,
    title="OFA: A Framework of Initializing Unseen Subword Embeddings for Efficient Large-scale Multilingual "
    "Continued Pretraining",
    arxiv="2311.08849",
    tags=("mix", "convex", "corpus", "bilingual"),
)
def ofa(context: RowContext, settings: OfaSettings) -> RowMix:
    """`E_t[t] = sum_s w_s E_s[s]` over the k source tokens nearest to t, `w = softmax(cos / temperature)`.

    Like WECHSEL, but overlapping tokens are copied (`fuzzy_overlap` adds those that differ in case, as the
    paper does, which merges "US" with "us"), and the vector of a token is the plain mean of the vectors of
    all words that contain it. The paper takes 200-dimensional vectors of one multilingual space (ColexNet+):
    give that file as `source_vectors` and as `target_vectors`. Two monolingual spaces are aligned as in
    `wechsel`. Tokens without a vector are drawn from N(mu, sd).

    The paper also factorises the rows, `E = F P`, and mixes those of F. By linearity that is the same as
    mixing rows of E (of the low-rank E): see [`factorise`][warmstart.vocabulary.factorise.factorise]. Given a
    source that the step `factorise` has made, a transplant mixes rows of F, draws missing ones from N(mu, sd)
    of F as the paper does, and leaves a factorised checkpoint.

    Differences from the released code: words are cut with and without a leading space, but not once more in
    capitals; source tokens without a vector are never neighbours; the head bias follows by the same weights
    (there it starts fresh).

    Returns:
        Convex weights, `(V_target, V_source)`, at most `neighbours` per row.

    Raises:
        UserError: No text or vectors, no anchors, or no anchor with vectors on both sides.
    """
    same = settings.source_vectors is not None and settings.source_vectors == settings.target_vectors
    if settings.anchors == "auto" and same:
        settings = settings.model_copy(update={"anchors": "none"})
    source, target = bilingual_token_spaces(context, settings, method="ofa", weighted=False)
    return nearest_mix(
        context.shape,
        context.wanted,
        source,
        target,
        neighbours=settings.neighbours,
        temperature=settings.temperature,
    )
