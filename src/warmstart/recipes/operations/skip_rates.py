"""Step type `skip-rates`: how many tokens skip routers let through, and what that costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class SkipRatesSettings(Settings):
    """How many tokens of a text go through the blocks of a model with skip routers."""

    source: str = Field(min_length=1)
    """Model with skip routers: folder, hub id, `name@revision`, named source or `${step}`."""
    corpus: CorpusSettings
    """Text to read."""
    eval_split: Literal["train", "valid", "test", "all"] = "test"
    """Part of the corpus that is read."""
    eval_max_bytes: int | None = Field(default=65536, gt=0)
    """UTF-8 bytes to read at most; null for everything."""
    context_length: int = Field(default=512, gt=1)
    """Tokens that the model sees at once, limited by its own maximum."""


@operations.register("skip-rates", settings=SkipRatesSettings, tags=("measures",))
def skip_rates_step(settings: SkipRatesSettings, folder: Path, runner: Runner) -> None:
    """Measure the share of tokens that go through blocks, and of operations; into `skip-rates.json`.

    A model without routers lets every token through.
    """
    with atomic_folder(folder / "output", replace=True) as output:
        text = json.dumps(skip_rates_of(settings), indent=1) + "\n"
        (output / "skip-rates.json").write_text(text, encoding="utf-8")


def skip_rates_of(settings: SkipRatesSettings) -> dict[str, Any]:
    """The numbers of [`SkipRates`][warmstart.evaluation.skip_rates.SkipRates]."""
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus
    from warmstart.evaluation.skip_rates import skip_rates

    checkpoint, corpus = resolve(settings.source), open_corpus(settings.corpus)
    return skip_rates(
        checkpoint.load_model(),
        checkpoint.load_tokenizer(),
        (document.text for document in corpus.documents(settings.eval_split)),
        context_length=settings.context_length,
        max_bytes=settings.eval_max_bytes,
    ).model_dump()
