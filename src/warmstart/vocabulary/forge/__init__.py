"""Tokenizers made from text: trained here, opened by `AutoTokenizer`, described by numbers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.foundation.files import atomic_folder
from warmstart.vocabulary.settings import TokenizerSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from warmstart.corpus import Corpus
    from warmstart.vocabulary.forge.report import TokenizerReport

__all__ = ["TokenizerForge", "forge", "save_tokenizer"]

REPORT_BYTES = 2_000_000


class TokenizerForge:
    """Trains tokenizers of one make.

    Args:
        settings: Kind, size and limits; its `corpus` is not opened here.
        like: Tokenizer whose kind, normaliser, pre-tokeniser, decoder, special tokens and template are kept.
    """

    def __init__(self, settings: TokenizerSettings, like: PreTrainedTokenizerFast | None = None) -> None:
        from warmstart.vocabulary.forge.skeleton import skeleton

        self.settings = settings
        self.skeleton = skeleton(settings, like)

    def train(self, texts: Iterable[str]) -> PreTrainedTokenizerFast:
        """A tokenizer trained on a stream of texts; equal texts give an equal tokenizer."""
        from warmstart.vocabulary.forge.training import train_state

        return self.tokenizer(train_state(texts, self.skeleton, self.settings))

    def tokenizer(self, state: dict[str, Any]) -> PreTrainedTokenizerFast:
        """Wrap a complete tokenizer.json dictionary with the make's roles and options."""
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        backend = Tokenizer.from_str(json.dumps(state))
        return PreTrainedTokenizerFast(tokenizer_object=backend, **self.skeleton.options)


def forge(settings: TokenizerSettings, out: Path, *, replace: bool = False) -> TokenizerReport:
    """Train a tokenizer on a corpus and save it as a folder for `AutoTokenizer.from_pretrained`.

    The folder also holds `warmstart.json`: settings, data fingerprint, versions and the measured report.

    Args:
        settings: What to train, on what.
        out: Folder to create.
        replace: Whether an existing folder may be replaced.

    Returns:
        Fertility, bytes per token, round-trip failures and unreachable tokens on held-out text.
    """
    from warmstart.checkpoint import Lineage
    from warmstart.corpus import open_corpus
    from warmstart.vocabulary.forge.report import measure
    from warmstart.vocabulary.opening import open_tokenizer

    corpus = open_corpus(settings.corpus)
    like = open_tokenizer(settings.like) if settings.like else None
    made = TokenizerForge(settings, like)
    tokenizer = made.train(_Texts(corpus))
    held_out = (document.text for document in corpus.documents("valid"))
    first = next(held_out, None)
    # a corpus without held-out documents is measured on its own text
    sample = itertools.chain([first], held_out) if first else (d.text for d in corpus.documents("train"))
    report = measure(tokenizer, sample, max_bytes=REPORT_BYTES)
    lineage = Lineage.of(
        "tokenizer", settings, data={corpus.name: corpus.fingerprint}, measured=report.model_dump(mode="json")
    )
    with atomic_folder(out, replace=replace) as folder:
        save_tokenizer(tokenizer, folder)
        record = {"format": 1, "lineage": lineage.model_dump(mode="json")}
        (folder / "warmstart.json").write_text(
            json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8"
        )
    return report


class _Texts:
    """The training texts of a corpus, as often as they are asked for."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def __iter__(self) -> Iterator[str]:
        return (document.text for document in self._corpus.documents("train"))


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the tokenizer's files, under the class name that transformers 4 and 5 both know."""
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    if config.get("tokenizer_class") == "TokenizersBackend":
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
