"""Words of two languages with vectors in one space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import model_validator

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.aux_space.anchors import Anchors, anchor_pairs
from warmstart.vocabulary.aux_space.binding import word_space
from warmstart.vocabulary.aux_space.procrustes import align_spaces
from warmstart.vocabulary.aux_space.train import StaticSettings

if TYPE_CHECKING:
    from warmstart.vocabulary.rows._base import RowContext


class WordVectorSettings(Settings):
    """Where word vectors of two languages come from, and what brings them into one space."""

    source_vectors: str | None = None
    """File of word vectors of the source language (.vec, .vec.gz, .bin, .npz); without it they are trained on
    the source text."""
    target_vectors: str | None = None
    """File of word vectors of the target language; without it they are trained on the target text."""
    training: StaticSettings = StaticSettings(level="word", min_count=5, min_n=5, max_n=5)
    """How word vectors are trained."""
    anchors: Anchors = "auto"
    """Pairs that bring the two languages into one space: the given `dictionary`; one mined from `parallel`
    sentences; words `identical` in both texts; `none` where the vectors are aligned already (multilingual
    vectors in two files). `auto`: the first of these that is given."""
    centre: bool = False
    """Subtract each language's mean vector before fitting."""
    normalise: bool = False
    """Scale word vectors to length one before fitting."""

    @model_validator(mode="after")
    def _words(self) -> Self:
        if self.training.level != "word":
            raise ValueError("bags are made of words: training.level must be word")
        return self


@dataclass(frozen=True)
class Words:
    """Words of both languages, the most frequent first.

    Attributes:
        texts: The words; one that both languages have stands there twice.
        vectors: `(W, v)` float32.
        of_source: `(W,)` bool: words of the source language.
    """

    texts: list[str]
    vectors: np.ndarray
    of_source: np.ndarray


def bilingual_words(context: RowContext, method: str, settings: WordVectorSettings) -> Words:
    """Words of the source's and of the target's text in one space.

    Raises:
        UserError: No text or vectors, no anchors, or spaces of different dimensions without anchors.
    """
    files = {"source": settings.source_vectors, "target": settings.target_vectors}
    source, target = (
        word_space(context, method, side, file=file, training=settings.training)
        for side, file in files.items()
    )
    pairs = anchor_pairs(context, method, settings.anchors, source, target)
    if pairs is not None:
        maps = align_spaces(
            source,
            target,
            pairs,
            centre=settings.centre,
            normalise=settings.normalise,
            where="dictionary",
        )
        source, target = maps.source.apply(source), maps.target.apply(target)
    elif source.dim != target.dim:
        raise UserError(
            f"the source vectors have {source.dim} dimensions, the target vectors {target.dim}",
            where=f"initialiser {method}",
            fix="with anchors: none both files must come from one space",
        )
    rows = [np.flatnonzero(space.known) for space in (source, target)]
    counts = np.concatenate([source.counts[rows[0]], target.counts[rows[1]]])
    order = np.argsort(-counts, kind="stable")
    texts = [source.names[i] for i in rows[0]] + [target.names[i] for i in rows[1]]
    vectors = np.concatenate([source.vectors[rows[0]], target.vectors[rows[1]]])
    return Words([texts[i] for i in order], vectors[order], order < len(rows[0]))
