"""Sentences of a step, and the vectors that checkpoints give them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from warmstart.corpus.settings import CorpusSettings
    from warmstart.corpus.splitting import Split


def read_pairs(parallel: str, split: str, limit: int | None) -> tuple[list[str], list[str]]:
    """Both sides of parallel sentences, of which at most `limit` pairs are kept, chosen by hash."""
    from warmstart.corpus import open_pairs

    pairs = _some(list(open_pairs(parallel, split)), limit)
    return [left for left, _ in pairs], [right for _, right in pairs]


def read_sentences(
    parallel: str | None, corpus: CorpusSettings | None, split: Split, limit: int | None, *, where: str
) -> tuple[list[str], list[str]]:
    """What a teacher and what a student reads: both sides of parallel sentences, or the same documents twice.

    Raises:
        UserError: Neither is given.
    """
    from warmstart.corpus import open_corpus

    if parallel is not None:
        return read_pairs(parallel, split, limit)
    if corpus is None:
        raise UserError("there is no text to read", where=where, fix="add corpus: … or parallel: …")
    texts = [text for text, _ in _some([(d.text, "") for d in open_corpus(corpus).documents(split)], limit)]
    return texts, texts


def _some(pairs: list[tuple[str, str]], limit: int | None) -> list[tuple[str, str]]:
    if limit is None or limit >= len(pairs):
        return pairs
    by_hash = sorted(pairs, key=lambda pair: blake2b("\t".join(pair).encode("utf-8", "replace")).digest())
    return by_hash[:limit]


def vectors_of(source: str | Path, texts: Sequence[str], *, max_length: int, bf16: bool) -> np.ndarray:
    """Sentence vectors of a checkpoint's body, `(n, d)`."""
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.checkpoint import resolve
    from warmstart.evaluation.retrieval import sentence_vectors

    checkpoint = resolve(source)
    model, tokenizer = checkpoint.load_model(as_stored=True), checkpoint.load_tokenizer()
    return sentence_vectors(model, tokenizer, texts, max_length=max_length, bf16=bf16)
