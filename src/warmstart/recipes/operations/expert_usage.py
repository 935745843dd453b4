"""Step type `expert-usage`: how evenly a mixture uses its experts."""

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


class ExpertUsageSettings(Settings):
    """Which experts the routers of a mixture choose on a text."""

    source: str = Field(min_length=1)
    """Mixture of experts: folder, hub id, `name@revision`, named source or `${step}`."""
    corpus: CorpusSettings
    """Text to read."""
    eval_split: Literal["train", "valid", "test", "all"] = "test"
    """Part of the corpus that is read."""
    eval_max_bytes: int | None = Field(default=65536, gt=0)
    """UTF-8 bytes to read at most; null for everything."""
    context_length: int = Field(default=512, gt=1)
    """Tokens that the model sees at once, limited by its own maximum."""


@operations.register("expert-usage", settings=ExpertUsageSettings, tags=("measures",))
def expert_usage_step(settings: ExpertUsageSettings, folder: Path, runner: Runner) -> None:
    """Measure how evenly a mixture uses its experts; the artifact holds `expert-usage.json`.

    `entropy` is 1 when all experts of a layer get the same load; `unused` is the share of experts that were
    never chosen. A dense model counts as one expert, evenly used.
    """
    with atomic_folder(folder / "output", replace=True) as output:
        text = json.dumps(expert_usage(settings), indent=1) + "\n"
        (output / "expert-usage.json").write_text(text, encoding="utf-8")


def expert_usage(settings: ExpertUsageSettings) -> dict[str, Any]:
    """The numbers of [`ExpertUse`][warmstart.evaluation.expert_use.ExpertUse]."""
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus
    from warmstart.evaluation.expert_use import expert_use

    checkpoint, corpus = resolve(settings.source), open_corpus(settings.corpus)
    return expert_use(
        checkpoint.load_model(),
        checkpoint.load_tokenizer(),
        (document.text for document in corpus.documents(settings.eval_split)),
        context_length=settings.context_length,
        max_bytes=settings.eval_max_bytes,
    ).model_dump()
