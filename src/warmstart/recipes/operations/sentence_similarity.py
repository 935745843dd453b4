"""Step type `sentence-similarity`: does an encoder find those sentences alike that people find alike?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class SentenceSimilaritySettings(Settings):
    """Cosines of sentence vectors against scores of people, and against another encoder's."""

    source: str = Field(min_length=1)
    """Checkpoint whose body encodes: folder, hub id, `name@revision` or `${step}`."""
    other: str | None = None
    """Another checkpoint that reads the same pairs, such as the teacher."""
    scored: str
    """Scored pairs: `sick`, or a file with two sentences and a number in each line, tabs between."""
    split: Literal["train", "valid", "test"] = "test"
    """Part of a named set."""
    max_length: int = Field(default=64, ge=4)
    """Tokens per sentence at most."""
    bf16: bool = False
    """Whether matrix products run in bfloat16."""


@operations.register("sentence-similarity", settings=SentenceSimilaritySettings, tags=("measures",))
def sentence_similarity_step(settings: SentenceSimilaritySettings, folder: Path, runner: Runner) -> None:
    """Measure rank correlations of cosines into `similarity.json`.

    `spearman` is Spearman's rho of the cosines with the scores, the usual number of semantic textual
    similarity; with `other`, `other_spearman` is the same of that checkpoint, `agreement` is rho of the two
    checkpoints' cosines, and `returned` is `spearman / other_spearman`.
    """
    from warmstart.corpus.scored import scored_pairs
    from warmstart.evaluation.similarity import cosines, rank_correlation
    from warmstart.recipes.sentence_vectors import vectors_of

    pairs = scored_pairs(settings.scored, settings.split)
    texts = list(dict.fromkeys([*pairs.first, *pairs.second]))
    place = {text: number for number, text in enumerate(texts)}
    sides = [[place[text] for text in side] for side in (pairs.first, pairs.second)]

    def alike(source: str) -> list[float]:
        vectors = vectors_of(source, texts, max_length=settings.max_length, bf16=settings.bf16)
        return cosines(vectors[sides[0]], vectors[sides[1]]).tolist()

    ours = alike(settings.source)
    found: dict[str, float] = {
        "pairs": len(pairs.scores),
        "spearman": rank_correlation(ours, pairs.scores),
    }
    if settings.other is not None:
        theirs = alike(settings.other)
        found["other_spearman"] = rank_correlation(theirs, pairs.scores)
        found["agreement"] = rank_correlation(ours, theirs)
        found["returned"] = found["spearman"] / found["other_spearman"] if found["other_spearman"] else 0.0
    with atomic_folder(folder / "output", replace=True) as output:
        (output / "similarity.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
