"""Step type `embed`: sentence vectors of one side of parallel text."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class EmbedSettings(Settings):
    """Sentence vectors that a checkpoint gives one side of parallel sentences."""

    source: str = Field(min_length=1)
    """Checkpoint whose body encodes: folder, hub id, `name@revision` or `${step}`."""
    parallel: str
    """Sentence pairs: a file with tabs or a named set such as `multi30k/en-de`."""
    side: Literal["first", "second"] = "first"
    """Which text of each pair is read."""
    split: Literal["train", "valid", "test", "all"] = "train"
    """Part of a named set."""
    max_pairs: int | None = Field(default=None, gt=0)
    """Pairs at most, chosen by hash."""
    max_length: int = Field(default=64, ge=4)
    """Tokens per sentence at most."""
    bf16: bool = False
    """Whether matrix products run in bfloat16."""


@operations.register("embed", settings=EmbedSettings)
def embed_step(settings: EmbedSettings, folder: Path, runner: Runner) -> None:
    """Encode one side of parallel sentences by mean pooling; the artifact is `vectors.npy`, `(n, d)`."""
    from warmstart.recipes.distil import read_pairs, vectors_of

    sides = read_pairs(settings.parallel, settings.split, settings.max_pairs)
    texts = sides[settings.side == "second"]
    vectors = vectors_of(settings.source, texts, max_length=settings.max_length, bf16=settings.bf16)
    with atomic_folder(folder / "output", replace=True) as output:
        np.save(output / "vectors.npy", vectors)
