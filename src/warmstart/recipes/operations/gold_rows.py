"""Step type `gold-rows`: in a word cipher, how near are the rows of new tokens to the true ones?"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner

MIN_COUNT = 2
"""Words that the plain text holds less often have no known meaning."""


class GoldRowsSettings(Settings):
    """Cosine of a checkpoint's input rows to the gold rows of a word cipher."""

    source: str = Field(min_length=1)
    """Checkpoint to judge, with a vocabulary of the enciphered text."""
    reference: str = Field(min_length=1)
    """Checkpoint that knows the plain text; its rows are the truth."""
    truth: str = Field(min_length=1)
    """Plain text of the cipher: named set such as `multi30k/en`, or path."""


@operations.register("gold-rows", settings=GoldRowsSettings, tags=("measures",))
def gold_rows_step(settings: GoldRowsSettings, folder: Path, runner: Runner) -> None:
    """Compare input rows with those of the true words; the artifact holds `gold.json`.

    `cosine` and `centred` (the mean source row taken off) are means over whole words whose true word is one
    source token, `hidden` the latter over words that no dictionary has shown.
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus.named.cipher import is_shown, meanings
    from warmstart.vocabulary.gold import gold_cosines

    meaning = meanings(settings.truth, min_count=MIN_COUNT)
    found = gold_cosines(resolve(settings.source), resolve(settings.reference), meaning, is_shown)
    with atomic_folder(folder / "output", replace=True) as output:
        (output / "gold.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")
