"""Step type `minimal-pairs`: which text of each pair does a model find more likely?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class MinimalPairsSettings(Settings):
    """Pairs of a right and a wrong text, judged by a causal language model."""

    source: str = Field(min_length=1)
    """Causal checkpoint: folder, hub id or `${step}`."""
    parallel: str
    """Pairs, the right text first: a file with tabs or a named set of pairs."""
    split: Literal["train", "valid", "test", "all"] = "test"
    """Part of a named set."""
    per_byte: bool = False
    """Compare bits per byte instead of bits, for pairs of unequal length."""
    context_length: int = Field(default=512, gt=1)
    """Tokens that the model sees at once, limited by its own maximum."""
    bf16: bool = False
    """Whether matrix products run in bfloat16."""


@operations.register("minimal-pairs", settings=MinimalPairsSettings, tags=("measures",))
def minimal_pairs_step(settings: MinimalPairsSettings, folder: Path, runner: Runner) -> None:
    """Measure how often the right text of a pair is the likelier one, into `minimal-pairs.json`."""
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_pairs
    from warmstart.evaluation.minimal_pairs import minimal_pairs

    checkpoint = resolve(settings.source)
    found = minimal_pairs(
        checkpoint.load_model(),
        checkpoint.load_tokenizer(),
        list(open_pairs(settings.parallel, settings.split)),
        task=checkpoint.task,
        context_length=settings.context_length,
        per_byte=settings.per_byte,
        bf16=settings.bf16,
    )
    with atomic_folder(folder / "output", replace=True) as output:
        (output / "minimal-pairs.json").write_text(found.model_dump_json(indent=1), encoding="utf-8")
