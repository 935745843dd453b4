"""Where word vectors of two languages come from."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from warmstart.foundation.settings import Settings
from warmstart.vocabulary.aux_space.anchors import Anchors
from warmstart.vocabulary.aux_space.train import StaticSettings


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
    sentences; words `identical` in both texts (numbers, names; the right choice within one language); `none`
    where the vectors are aligned already (multilingual vectors in two files). `auto`: the first of these that
    is given."""
    centre: bool = False
    """Subtract each language's mean vector before fitting; usually helps, not done by WECHSEL's paper."""
    normalise: bool = False
    """Scale word vectors to length one before fitting; usually helps, not done by WECHSEL's paper."""

    @model_validator(mode="after")
    def _words(self) -> Self:
        if self.training.level != "word":
            raise ValueError("vectors of words are aligned: training.level must be word")
        return self
