"""The auxiliary spaces of one transplant: trained on its texts or read from its files, kept for all arms."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.aux_space.compose import Composition, subword_space, token_strings
from warmstart.vocabulary.aux_space.formats import load_vectors
from warmstart.vocabulary.aux_space.space import AuxSpace
from warmstart.vocabulary.aux_space.train import StaticSettings, tokenizer_fingerprint, train_space

if TYPE_CHECKING:
    from warmstart.corpus.document import Document
    from warmstart.vocabulary.rows._base import RowContext


def target_token_space(
    context: RowContext,
    method: str,
    *,
    file: str | None,
    training: StaticSettings,
    compose: Composition = "auto",
) -> AuxSpace:
    """A vector for each target token, row index = token id.

    Args:
        context: Of the initialiser.
        method: Its name, for errors.
        file: Given vectors: of tokens (their raw strings) or of words, which are then composed to tokens.
        training: How vectors are trained where no file is given; word-level ones are composed as well.
        compose: How tokens are composed from words.

    Raises:
        UserError: Neither file nor text, or a file that knows neither tokens nor words.
    """
    tokenizer = context.target_tokenizer
    key = (
        "target-tokens",
        file,
        training.digest(),
        compose,
        _identity(context.corpus),
        tokenizer_fingerprint(tokenizer),
    )
    if key in context.aux:
        found: AuxSpace = context.aux[key]
        return found
    if file is None and training.level == "token":
        space = train_space(context.need("corpus", method), training, tokenizer)
    else:
        space = load_vectors(file) if file else train_space(context.need("corpus", method), training)
        space = _per_token(space, tokenizer) or subword_space(space, tokenizer, compose=compose)
    if not space.known.any():
        raise UserError("no token of the new tokenizer has a vector", where=file or "corpus")
    context.aux[key] = space
    return space


def word_space(
    context: RowContext, method: str, side: str, *, file: str | None, training: StaticSettings
) -> AuxSpace:
    """Word vectors of one side (`source` or `target`): from a file, else trained on that side's text.

    Where a side has no corpus but parallel sentences were given, its half of them is the text.

    Raises:
        UserError: No file and no text.
    """
    name = "source_corpus" if side == "source" else "corpus"
    corpus: Any = getattr(context, name)
    if file is None and corpus is None and context.parallel is not None:
        corpus = _Sentences([pair[side == "target"] for pair in context.parallel])
    key = ("words", side, file, training.digest(), None if file else _identity(corpus))
    if key not in context.aux:
        if file is None and corpus is None:
            context.need(name, method)
        context.aux[key] = load_vectors(file) if file else train_space(corpus, training)
    space: AuxSpace = context.aux[key]
    return space


class _Sentences:
    """One half of parallel sentences, as a corpus of one split."""

    name = "parallel"

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        state = hashlib.sha256()
        for text in texts:
            state.update(text.encode() + b"\0")
        self.fingerprint = state.hexdigest()[:16]

    def documents(self, split: str = "train") -> Iterator[Document]:
        """All sentences, one document each."""
        from warmstart.corpus.document import Document

        return (Document(text, f"parallel:{i}") for i, text in enumerate(self._texts) if text.strip())


def _identity(corpus: Any) -> str | None:
    return None if corpus is None else corpus.fingerprint


def _per_token(space: AuxSpace, tokenizer: Any) -> AuxSpace | None:
    """Vectors whose names are this tokenizer's raw token strings, by token id; None where they are words."""
    import numpy as np

    names = token_strings(tokenizer)
    rows = np.array([space.index.get(name, -1) for name in names])
    # a token file knows (nearly) every token it has counted; a word file knows few marked pieces
    marked = np.array([name[:1] in "Ġ▁" or name.startswith("##") for name in names])
    enough = (rows[marked] >= 0).mean() > 0.2 if marked.any() else (rows >= 0).mean() > 0.5
    if not enough:
        return None
    vectors = np.where((rows >= 0)[:, None], space.vectors[rows], 0).astype(np.float32)
    vectors[tokenizer.all_special_ids] = 0
    return AuxSpace.of(names, vectors, np.where(rows >= 0, space.counts[rows], 0))
