"""Step type `retrieve`: does each sentence find its translation?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class RetrieveSettings(Settings):
    """Sentence retrieval between two encoders, or within one."""

    source: str = Field(min_length=1)
    """Checkpoint that reads the second text of each pair."""
    other: str | None = None
    """Checkpoint that reads the first text; `source` where not given."""
    parallel: str
    """Sentence pairs: a file with tabs or a named set such as `multi30k/en-de`."""
    split: Literal["train", "valid", "test", "all"] = "test"
    """Part of a named set."""
    max_pairs: int | None = Field(default=None, gt=0)
    """Pairs at most, chosen by hash."""
    max_length: int = Field(default=64, ge=4)
    """Tokens per sentence at most."""


@operations.register("retrieve", settings=RetrieveSettings, tags=("measures",))
def retrieve_step(settings: RetrieveSettings, folder: Path, runner: Runner) -> None:
    """Measure accuracy and reciprocal rank of finding a translation, both ways, into `retrieval.json`.

    `accuracy` is that of the second texts looking for the first ones, `accuracy_back` the other way.
    """
    from warmstart.evaluation.retrieval import retrieval
    from warmstart.recipes.sentence_vectors import read_pairs, vectors_of

    _, second = read_pairs(settings.parallel, settings.split, settings.max_pairs)
    shared = settings.model_dump(include={"parallel", "split", "max_length"})
    asked = shared | {"source": settings.other or settings.source, "max_sentences": settings.max_pairs}
    first = runner.step("embed", asked)
    left = np.load(first / "vectors.npy")
    right = vectors_of(settings.source, second, max_length=settings.max_length, bf16=False)
    with atomic_folder(folder / "output", replace=True) as output:
        found = retrieval(right, left).model_dump_json(indent=1)
        (output / "retrieval.json").write_text(found, encoding="utf-8")
