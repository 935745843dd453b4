"""Step type `fertility`: into how many tokens does a checkpoint's tokenizer cut a text?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class FertilitySettings(Settings):
    """What a checkpoint's tokenizer costs on a text, apart from what its model is worth."""

    source: str = Field(min_length=1)
    """Checkpoint or tokenizer folder, hub id, named source or `${step}`."""
    corpus: CorpusSettings
    """Text to cut."""
    eval_split: Literal["train", "valid", "test", "all"] = "test"
    """Part of the corpus that is read."""
    max_bytes: int | None = Field(default=1_000_000, gt=0)
    """UTF-8 bytes to read at most."""


@operations.register("fertility", settings=FertilitySettings, tags=("measures",))
def fertility_step(settings: FertilitySettings, folder: Path, runner: Runner) -> None:
    """Measure tokens per word and bytes per token of held-out text; the artifact holds `fertility.json`."""
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.corpus import open_corpus
    from warmstart.vocabulary.forge.report import measure
    from warmstart.vocabulary.opening import open_tokenizer

    texts = open_corpus(settings.corpus).texts(settings.eval_split)
    found = measure(open_tokenizer(settings.source), texts, max_bytes=settings.max_bytes)
    with atomic_folder(folder / "output", replace=True) as output:
        (output / "fertility.json").write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
