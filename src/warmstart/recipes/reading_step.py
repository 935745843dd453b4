"""What steps share that let a model read a text and count what happens inside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings


class ReadingStep(Settings):
    """Settings of any step that lets a model read."""

    source: str = Field(min_length=1)
    """Checkpoint that reads: folder, hub id, `name@revision`, named source or `${step}`."""
    corpus: CorpusSettings
    """Text to read."""
    eval_split: Literal["train", "valid", "test", "all"] = "test"
    """Part of the corpus that is read."""
    eval_max_bytes: int | None = Field(default=65536, gt=0)
    """UTF-8 bytes to read at most; null for everything."""
    context_length: int = Field(default=512, gt=1)
    """Tokens that the model sees at once, limited by its own maximum."""


def leave_counts(settings: ReadingStep, count: Callable[..., BaseModel], folder: Path, name: str) -> None:
    """Let the model read, and leave what was counted as a file in `folder/output`.

    Args:
        settings: Who reads what.
        count: `count(model, tokenizer, texts, context_length=…, max_bytes=…)`.
        folder: The step's folder.
        name: Of the file.
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus

    checkpoint, corpus = resolve(settings.source), open_corpus(settings.corpus)
    found: dict[str, Any] = count(
        checkpoint.load_model(),
        checkpoint.load_tokenizer(),
        (document.text for document in corpus.documents(settings.eval_split)),
        context_length=settings.context_length,
        max_bytes=settings.eval_max_bytes,
    ).model_dump()
    with atomic_folder(folder / "output", replace=True) as output:
        (output / name).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
