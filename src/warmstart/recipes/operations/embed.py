"""Step type `embed`: sentence vectors of a text, or of one side of parallel text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class EmbedSettings(Settings):
    """Sentence vectors that a checkpoint gives sentences."""

    source: str = Field(min_length=1)
    """Checkpoint whose body encodes: folder, hub id, `name@revision` or `${step}`."""
    parallel: str | None = None
    """Sentence pairs: a file with tabs or a named set such as `multi30k/en-de`."""
    side: Literal["first", "second"] = "first"
    """Which text of each pair is read."""
    corpus: CorpusSettings | None = None
    """Sentences without a translation, one per document."""
    split: Literal["train", "valid", "test", "all"] = "train"
    """Part of a named set or corpus."""
    max_sentences: int | None = Field(default=None, gt=0)
    """Sentences or pairs at most, chosen by hash."""
    max_length: int = Field(default=64, ge=4)
    """Tokens per sentence at most."""
    bf16: bool = False
    """Whether matrix products run in bfloat16."""


@operations.register("embed", settings=EmbedSettings)
def embed_step(settings: EmbedSettings, folder: Path, runner: Runner) -> None:
    """Encode sentences by mean pooling; the artifact is `vectors.npy`, `(n, d)`."""
    from warmstart.recipes.sentence_vectors import read_sentences, vectors_of

    sides = read_sentences(
        settings.parallel, settings.corpus, settings.split, settings.max_sentences, where="embed"
    )
    texts = sides[settings.side == "second"]
    vectors = vectors_of(settings.source, texts, max_length=settings.max_length, bf16=settings.bf16)
    with atomic_folder(folder / "output", replace=True) as output:
        np.save(output / "vectors.npy", vectors)
