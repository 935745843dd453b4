"""TokenAdapt: the pieces of a token weighed by meaning and length, blended with its nearest old tokens."""

from __future__ import annotations

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.aux_space.binding import word_space
from warmstart.vocabulary.aux_space.compose import Composition, subword_space
from warmstart.vocabulary.aux_space.neighbours import nearest_by_cosine
from warmstart.vocabulary.aux_space.tiles import unit
from warmstart.vocabulary.aux_space.train import StaticSettings
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.rows._sentences import encoded_strings
from warmstart.vocabulary.tokens import CanonicalToken

Entries = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Target ids, source ids and weights, `(n,)` each."""


class TokenAdaptSettings(Settings):
    """Options of `token-adapt`."""

    encoder: str | None = None
    """Encoder checkpoint whose averaged hidden states are the vectors of the bare strings of tokens, such as
    the folder of a sentence encoder. Without it the vectors are static ones."""
    vectors: str | None = None
    """File of word vectors (.vec, .vec.gz, .bin, .npz), composed to tokens of both vocabularies; without it
    and without an encoder they are trained on the target text."""
    training: StaticSettings = StaticSettings(level="word", min_count=5)
    """How word vectors are trained."""
    compose: Composition = "auto"
    """How tokens get vectors from words: `words`, `ngrams`, or `auto`."""
    temperature: float = Field(default=0.3, gt=0)
    """Of both softmaxes over scores. Between pieces scores lie within 0..1, so little is decided below."""
    neighbours: int = Field(default=3, ge=1)
    """Old tokens in the global part."""
    global_weight: float = Field(default=0.3, ge=0, le=1)
    """Share of the global part where a token has both."""
    threshold: float = Field(default=0.0, ge=-1, le=1)
    """Old tokens with a smaller cosine are left out of the global part."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.encoder is not None and self.vectors is not None:
            raise ValueError("give either an encoder or vectors")
        if self.training.level != "word":
            raise ValueError("the same vectors must serve two vocabularies: training.level must be word")
        return self


@initialisers.register(
    "token-adapt",
    settings=TokenAdaptSettings,
    title="Achieving Tokenizer Flexibility in Language Models through Heuristic Adaptation and Supertoken "
    "Learning",
    arxiv="2505.09738",
    tags=("mix", "convex", "corpus"),
)
def token_adapt(context: RowContext, settings: TokenAdaptSettings) -> RowMix:
    """`E_t[n] = (1 - g) sum_i w_i E_s[p_i] + g sum_o v_o E_s[o]`: a local and a global heuristic.

    Local, over the pieces `p_i` of the text of n: `w = softmax(c / T)`,
    `c_i = (softmax_i(cos(phi(n), phi(p_i))) + len(p_i) / len(n)) / 2`, lengths in bytes. Global, over the k
    old tokens o nearest to n: `v = softmax(cos / T)`, those below the threshold left out. phi is the vector
    of the bare string, without the space before a word.

    A token without pieces has the global part alone, one without vector or near neighbour the local part
    (then all cosines count as equal); with neither it is drawn from N(mu, sd). Encoders say little about
    fragments of words, and the inner softmax flattens what they say: T mostly weighs lengths.

    Differences from the released code: shared tokens are found by bytes and word start (there, by raw
    strings, so `Ġthe` and `▁the` differ); the fallback has a mean and deviation per dimension (there, one
    for the whole matrix); padding rows are mean rows (there, random); the pieces are those of running text.

    Returns:
        Convex weights, `(V_target, V_source)`, for the input rows, the head and its bias.

    Raises:
        UserError: Neither encoder nor vectors nor text.
    """
    source, target = _vectors(context, settings)
    local = _local(context, settings, source, target)
    near = _global(context, settings, source, target)
    both = np.intersect1d(local[0], near[0])
    shares = (1 - settings.global_weight, settings.global_weight)
    parts = [
        (ids, columns, weight * np.where(np.isin(ids, both), share, 1.0))
        for (ids, columns, weight), share in zip((local, near), shares)
    ]
    row, column, weight = (np.concatenate(part) for part in zip(*parts))
    return RowMix.from_entries(context.shape, row, column, weight)


def _local(
    context: RowContext, settings: TokenAdaptSettings, source: np.ndarray, target: np.ndarray
) -> Entries:
    pieces = context.vocab.pieces_all()
    ids = np.array([i for i in context.wanted if pieces[i]], dtype=np.int64)
    counts = np.array([len(pieces[i]) for i in ids], dtype=np.int64)
    segment = np.repeat(np.arange(len(ids)), counts)
    row, column = ids[segment], np.array([p for i in ids for p in pieces[i]], dtype=np.int64)
    cosine = np.einsum("ij,ij->i", target[row], source[column], dtype=np.float64)
    size = [
        np.array([len(t.text_bytes) for t in side]) for side in (context.vocab.source, context.vocab.target)
    ]
    length = size[0][column] / np.maximum(size[1][row], 1)
    score = (_softmax(segment, cosine) + length) / 2
    return row, column, _softmax(segment, score / settings.temperature)


def _global(
    context: RowContext, settings: TokenAdaptSettings, source: np.ndarray, target: np.ndarray
) -> Entries:
    keys = np.flatnonzero(source.any(axis=1))
    wanted = context.wanted[target[context.wanted].any(axis=1)]
    if not len(keys) or not len(wanted) or settings.global_weight == 0:
        empty = np.empty(0, dtype=np.int64)
        return empty, empty, np.empty(0)
    column, cosine = nearest_by_cosine(target[wanted], source[keys], settings.neighbours)
    close = cosine >= settings.threshold
    segment, row = np.nonzero(close)[0], np.repeat(wanted, close.sum(axis=1))
    return row, keys[column[close]], _softmax(segment, cosine[close] / settings.temperature)


def _softmax(segment: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Softmax within each segment; `segment` is sorted. Scores are small enough for a plain exponential."""
    if not len(score):
        return score
    top = np.full(int(segment[-1]) + 1, -np.inf)
    np.maximum.at(top, segment, score)
    weight = np.exp(score - top[segment])
    return weight / np.bincount(segment, weights=weight)[segment]


def _vectors(context: RowContext, settings: TokenAdaptSettings) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of all source and all target tokens; zero where there is none."""
    sides = (context.vocab.source, context.vocab.target)
    if settings.encoder is not None:
        texts = [_bare(token) for side in sides for token in side]
        found = unit(encoded_strings(context, settings.encoder, texts))
        return found[: len(sides[0])], found[len(sides[0]) :]
    words = word_space(context, "token-adapt", "target", file=settings.vectors, training=settings.training)
    spaces = [
        subword_space(words, tokenizer, compose=settings.compose)
        for tokenizer in (context.source_tokenizer, context.target_tokenizer)
    ]
    if not spaces[1].known.any():
        raise UserError("no token of the new tokenizer has a vector", where=settings.vectors or "corpus")
    return unit(spaces[0].vectors), unit(spaces[1].vectors)


def _bare(token: CanonicalToken) -> str:
    return token.text if token.is_text else ""
