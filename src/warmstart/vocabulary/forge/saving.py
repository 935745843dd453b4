"""A tokenizer as a folder: its files, where it comes from, and what was measured."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.foundation.files import atomic_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from warmstart.checkpoint import Lineage
    from warmstart.corpus import Corpus
    from warmstart.vocabulary.forge.change import ChangeReport

REPORT_BYTES = 2_000_000
"""UTF-8 bytes of each text that reports measure."""


def write(
    tokenizer: PreTrainedTokenizerFast,
    out: Path,
    lineage: Lineage,
    *,
    change: ChangeReport | None = None,
    replace: bool = False,
) -> None:
    """Write a tokenizer's folder, whole or not at all.

    `warmstart.json` beside the tokenizer's files holds the lineage, with the numbers in `lineage.measured`,
    and the whole report of a change under `change`.
    """
    record: dict[str, Any] = {"format": 1, "lineage": lineage.model_dump(mode="json")}
    if change is not None:
        record["change"] = change.model_dump(mode="json")
    with atomic_folder(out, replace=replace) as folder:
        save_tokenizer(tokenizer, folder)
        text = json.dumps(record, indent=1, ensure_ascii=False)
        (folder / "warmstart.json").write_text(text, encoding="utf-8")


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer's files, under the class name that transformers 4 and 5 both know."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def held_out(corpus: Corpus) -> Iterator[str]:
    """Held-out texts; a corpus without any is measured on its own text."""
    texts = (document.text for _, document in corpus.divided("valid"))
    first = next(texts, None)
    return corpus.texts("train") if first is None else itertools.chain([first], texts)


class TrainTexts:
    """The training texts of a corpus, as often as they are asked for."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def __iter__(self) -> Iterator[str]:
        return self._corpus.texts("train")
