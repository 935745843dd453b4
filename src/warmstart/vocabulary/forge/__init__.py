"""Tokenizers made from text: trained here, opened by `AutoTokenizer`, described by numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.vocabulary.forge.saving import REPORT_BYTES, TrainTexts, held_out, save_tokenizer, write
from warmstart.vocabulary.settings import TokenizerSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from warmstart.vocabulary.forge.report import TokenizerReport

__all__ = ["TokenizerForge", "forge", "save_tokenizer"]


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

    The folder also holds `warmstart.json`: settings, data fingerprint, versions and the measured report; with
    `like` also what the change of tokenizer does to the text.

    Args:
        settings: What to train, on what.
        out: Folder to create.
        replace: Whether an existing folder may be replaced.

    Returns:
        Fertility, bytes per token, round-trip failures and unreachable tokens on held-out text.
    """
    from warmstart.checkpoint import Lineage
    from warmstart.corpus import open_corpus
    from warmstart.vocabulary.forge.change import compare
    from warmstart.vocabulary.forge.report import measure
    from warmstart.vocabulary.opening import open_tokenizer

    corpus = open_corpus(settings.corpus)
    like = open_tokenizer(settings.like) if settings.like else None
    tokenizer = TokenizerForge(settings, like).train(TrainTexts(corpus))
    report = measure(tokenizer, held_out(corpus), max_bytes=REPORT_BYTES)
    change = None
    if like is not None:
        change = compare(like, tokenizer, new_text=held_out(corpus), max_bytes=REPORT_BYTES)
    lineage = Lineage.of(
        "tokenizer", settings, data={corpus.name: corpus.fingerprint}, measured=report.model_dump(mode="json")
    )
    write(tokenizer, out, lineage, change=change, replace=replace)
    return report
