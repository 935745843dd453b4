"""Step type `classify`: can a linear classifier read labels off a checkpoint's hidden states?"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from warmstart.corpus.labelled import Labelled


class ClassifySettings(Settings):
    """A linear classifier on a frozen checkpoint, tested on held-out texts and, if wanted, on other ones."""

    source: str = Field(min_length=1)
    """Checkpoint whose body reads the texts: folder, hub id, `name@revision`, named source or `${step}`."""
    labelled: str
    """Labelled texts to learn from and be tested on: a named set such as `bible/deu`, `trec` or
    `python-stdlib/package`, or a file with the fields `text` and `label`."""
    transfer: str | None = None
    """Further labelled texts with the same labels, such as another language, that are only tested on."""
    max_train: int | None = Field(default=2000, gt=1)
    """Texts to learn from at most, chosen by hash."""
    max_test: int | None = Field(default=1000, gt=1)
    """Texts to test on at most, of each set, and to choose the weight decay on; chosen by hash."""
    max_length: int = Field(default=128, ge=4)
    """Tokens of a text that are read."""
    bf16: bool = False
    """Whether matrix products run in bfloat16."""


@operations.register("classify", settings=ClassifySettings, tags=("measures",))
def classify_step(settings: ClassifySettings, folder: Path, runner: Runner) -> None:
    """Measure accuracy and macro F1 of logistic regression on mean-pooled last hidden states.

    The artifact is `classification.json`: `accuracy`, `macro_f1`, `chance` and `chance_f1` on the `test`
    split of `labelled`, the same with `transfer_` in front on that of `transfer`, and the number of texts.
    The weight decay is chosen on the `valid` split of `labelled`; no text of `transfer` is learned from.
    """
    from warmstart.corpus.labelled import labelled
    from warmstart.evaluation.classification import fit_best, scores

    parts = {split: labelled(settings.labelled, split) for split in ("train", "valid", "test")}
    parts = {
        split: some_of(part, settings.max_train if split == "train" else settings.max_test)
        for split, part in parts.items()
    }
    if settings.transfer is not None:
        parts["transfer"] = some_of(labelled(settings.transfer, "test"), settings.max_test)
    encode = _encoder(settings)
    pairs = {split: (encode(part.texts), part.labels) for split, part in parts.items()}
    classifier = fit_best(pairs["train"], pairs["valid"])
    found: dict[str, float] = scores(classifier, *pairs["test"]).model_dump()
    if "transfer" in pairs:
        found |= {
            f"transfer_{name}": value
            for name, value in scores(classifier, *pairs["transfer"]).model_dump().items()
        }
    found |= {f"{split}_texts": len(part.texts) for split, part in parts.items()}
    found |= {"labels": len(classifier.labels), "weight_decay": classifier.decay}
    with atomic_folder(folder / "output", replace=True) as output:
        (output / "classification.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _encoder(settings: ClassifySettings) -> Callable[[list[str]], np.ndarray]:
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.evaluation.retrieval import sentence_vectors

    checkpoint = resolve(settings.source)
    model, tokenizer = checkpoint.load_model(), checkpoint.load_tokenizer()

    def encode(texts: list[str]) -> np.ndarray:
        return sentence_vectors(model, tokenizer, texts, max_length=settings.max_length, bf16=settings.bf16)

    return encode


def some_of(part: Labelled, limit: int | None) -> Labelled:
    """At most `limit` of the texts, chosen by hash, in the order they came."""
    if limit is None or limit >= len(part.texts):
        return part
    marks = [blake2b(text.encode("utf-8", "replace"), digest_size=8).digest() for text in part.texts]
    kept = sorted(sorted(range(len(marks)), key=lambda i: (marks[i], i))[:limit])
    return type(part)([part.texts[i] for i in kept], [part.labels[i] for i in kept])
