"""Step type `evaluate`: what a checkpoint is worth on a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class EvaluateSettings(Settings):
    """Bits per byte of held-out text under a checkpoint."""

    source: str = Field(min_length=1)
    """Checkpoint to measure: folder, hub id, `name@revision`, named source or `${step}`."""
    corpus: CorpusSettings
    """Text to measure on."""
    eval_split: Literal["train", "valid", "test", "all"] = "test"
    """Part of the corpus that is read."""
    eval_max_bytes: int | None = Field(default=None, gt=0)
    """UTF-8 bytes to read at most; everything by default."""
    context_length: int = Field(default=512, gt=1)
    """Tokens that the model sees at once, limited by its own maximum."""
    bf16: bool = False
    """Whether matrix products run in bfloat16."""


@operations.register("evaluate", settings=EvaluateSettings, tags=("measures",))
def evaluate_step(settings: EvaluateSettings, folder: Path, runner: Runner) -> None:
    """Measure bits per byte of a text; the artifact holds `evaluation.json`."""
    with atomic_folder(folder / "output", replace=True) as output:
        text = json.dumps(evaluate(settings), indent=1, ensure_ascii=False) + "\n"
        (output / "evaluation.json").write_text(text, encoding="utf-8")


def evaluate(settings: EvaluateSettings) -> dict[str, object]:
    """Bits per byte with the counts behind it."""
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus
    from warmstart.evaluation import bits_per_byte

    checkpoint = resolve(settings.source)
    if checkpoint.base_only:
        raise UserError(
            "this is an encoder without a masked-language-model head, so it predicts no words",
            where=settings.source,
            fix="train it on text first (`warmstart train`), which gives it a head",
        )
    corpus = open_corpus(settings.corpus)
    measured = bits_per_byte(
        checkpoint.load_model(),
        checkpoint.load_tokenizer(),
        (document.text for document in corpus.documents(settings.eval_split)),
        task=checkpoint.task,
        context_length=settings.context_length,
        max_bytes=settings.eval_max_bytes,
        bf16=settings.bf16,
    )
    return {
        "checkpoint": str(checkpoint.path),
        "corpus": corpus.name,
        "split": settings.eval_split,
        "bits_per_byte": measured.bpb,
        "bytes": measured.bytes,
        "tokens": measured.tokens,
        "seconds": round(measured.seconds, 2),
    }
