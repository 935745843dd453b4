"""Step type `sentences`: a sentence encoder gets the vocabulary of another language, by every initialiser."""

from __future__ import annotations

from pathlib import Path

from warmstart.foundation.files import atomic_folder
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.recipes.sentences import SentencesSettings


@operations.register("sentences", settings=SentencesSettings)
def sentences_step(settings: SentencesSettings, folder: Path, runner: Runner) -> None:
    """Sentence retrieval before and after training, by each initialiser, in `sentences.json`."""
    from warmstart.recipes.sentences import run_sentences, write_sentences

    result = run_sentences(settings, runner)
    with atomic_folder(folder / "output", replace=True) as output:
        write_sentences(result, output)
