"""Vectors of tokens from vectors of words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.aux_space.space import AuxSpace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

Composition = Literal["words", "ngrams", "auto"]


def subword_space(
    words: AuxSpace,
    tokenizer: PreTrainedTokenizerFast,
    *,
    compose: Composition = "words",
    weighted: bool = True,
    max_words: int | None = None,
) -> AuxSpace:
    """A vector for every token of `tokenizer`, row index = token id.

    `words`: the frequency-weighted mean over all words whose tokenisation, with or without a leading space,
    contains the token: `phi(t) = sum_w f_w n_wt phi(w) / sum_w f_w n_wt`, where `n_wt` in 0..2 counts these
    two tokenisations. One sparse product computes all tokens.
    `ngrams`: fastText's composition of the token's text from character n-grams. Tokens without n-grams (one
    or two characters, byte pieces) stay unknown.
    `auto`: n-grams where the space has them; words for the tokens that they leave unknown.

    Source: WECHSEL (arXiv 2112.06598), both variants. Special tokens stay unknown.

    Args:
        words: Word-level space.
        tokenizer: Tokenizer whose tokens are wanted.
        compose: How.
        weighted: Weight words by frequency (OFA, arXiv 2311.08849, takes the plain mean).
        max_words: Only the first so many words (files are sorted by frequency).

    Raises:
        UserError: `ngrams` with vectors that have none.
    """
    names = token_strings(tokenizer)
    size = len(names)
    vectors, counts = np.zeros((size, words.dim), dtype=np.float32), np.ones(size, dtype=np.int64)
    if compose != "ngrams":
        vectors, counts = _from_words(words, tokenizer, size, weighted, max_words)
    if compose == "ngrams" or (compose == "auto" and words.ngrams is not None):
        finer = _from_ngrams(words, tokenizer, size)
        known = finer.any(axis=1)
        vectors[known] = finer[known]
    return AuxSpace.of(names, vectors, counts)


def token_strings(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Raw strings of all ids up to the highest; ids that no token uses get a name of their own."""
    by_id = {index: string for string, index in tokenizer.get_vocab().items()}
    return [by_id.get(index, f"<unused {index}>") for index in range(max(by_id, default=-1) + 1)]


def _from_ngrams(words: AuxSpace, tokenizer: PreTrainedTokenizerFast, size: int) -> np.ndarray:
    if words.ngrams is None:
        raise UserError(
            "these word vectors have no character n-grams",
            fix="set compose: words, or give vectors in fastText's .bin format",
        )
    vectors = np.zeros((size, words.dim), dtype=np.float32)
    special = set(tokenizer.all_special_ids)
    texts = tokenizer.batch_decode([[i] for i in range(size)], clean_up_tokenization_spaces=False)
    for token, text in enumerate(texts):
        text = text.strip()
        if token not in special and text and "\ufffd" not in text:
            vector = words.vector(text)
            if vector is not None:
                vectors[token] = vector
    return vectors


def _from_words(
    words: AuxSpace, tokenizer: PreTrainedTokenizerFast, size: int, weighted: bool, max_words: int | None
) -> tuple[np.ndarray, np.ndarray]:
    from scipy.sparse import csr_matrix

    rows = np.flatnonzero(words.known)[:max_words]
    texts = [words.names[row] for row in rows]
    tokens: list[np.ndarray] = []
    columns: list[np.ndarray] = []
    for variant in (texts, [" " + text for text in texts]):
        for start in range(0, len(variant), 16384):
            ids = tokenizer(
                variant[start : start + 16384], add_special_tokens=False, return_attention_mask=False
            )["input_ids"]
            lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
            flat = np.fromiter((i for piece in ids for i in piece), dtype=np.int64, count=int(lengths.sum()))
            word = np.repeat(np.arange(start, start + len(ids)), lengths)
            unique = np.unique(word * size + flat)  # a token counts once per tokenisation
            columns.append(unique // size)
            tokens.append(unique % size)
    token = np.concatenate(tokens) if tokens else np.empty(0, dtype=np.int64)
    column = np.concatenate(columns) if columns else np.empty(0, dtype=np.int64)
    special = np.isin(token, tokenizer.all_special_ids)
    token, column = token[~special], column[~special]
    weight = (words.counts[rows] if weighted else np.ones(len(rows), dtype=np.int64))[column]
    matrix = csr_matrix((weight.astype(np.float64), (token, column)), shape=(size, len(rows)))
    total = np.asarray(matrix.sum(axis=1)).ravel()
    vectors = matrix @ words.vectors[rows].astype(np.float64)
    vectors = np.divide(vectors, total[:, None], out=np.zeros_like(vectors), where=total[:, None] > 0)
    return vectors.astype(np.float32), total.astype(np.int64)
