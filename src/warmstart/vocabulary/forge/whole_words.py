"""Whole words of a text that a tokenizer cuts into several pieces."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.forge.unigram import count_words


def frequent_words(
    backend: Any, texts: Iterable[str], count: int, *, min_uses: int = 1, where: object = None
) -> list[str]:
    """The most frequent words that are several pieces, as the model sees them (`Ġthe`, `▁the`).

    A word is what stands between two cuts of the pre-tokeniser and consists of letters, marks, digits and
    `_`, with a letter among them. With and without a space in front it is two words where the tokenizer tells
    them apart, as byte-level ones do. Equally frequent words are taken in the order of their code points.

    Args:
        backend: `tokenizers.Tokenizer`.
        texts: Where words are counted.
        count: Most words.
        min_uses: Words that occur less often are left out.
        where: Tokenizer to name in errors.

    Raises:
        UserError: The tokenizer does not cut text into words, or it has every word of the text.
    """
    if backend.pre_tokenizer is None:
        raise UserError(
            "the tokenizer does not cut text into words, so that none can be counted",
            where=where,
            fix="give `tokens`, or take new tokens from the text with `count`",
        )
    words = count_words(texts, backend)
    found: list[str] = []
    for word, uses in sorted(words.items(), key=lambda item: (-item[1], item[0])):
        if uses < min_uses or len(found) == count:
            break
        known = backend.model.token_to_id(word) is not None  # also where its pieces are preferred to it
        if not known and is_word(_text(backend, word)) and len(backend.model.tokenize(word)) > 1:
            found.append(word)
    if not found:
        raise UserError(
            "the text holds no word that the tokenizer cuts into pieces",
            where=where,
            fix="give more text, or text in another language or domain",
        )
    return found


def is_word(text: str) -> bool:
    """Whether a text is one word, spaces around it aside.

    >>> [is_word(text) for text in (" snake_case", "x2", "42", "don't", "नमस्ते")]
    [True, True, False, False, True]
    """
    plain = text.strip()
    kinds = {unicodedata.category(character)[0] for character in plain.replace("_", "")}
    return "L" in kinds and kinds <= {"L", "M", "N"}


def _text(backend: Any, word: str) -> str:
    return str(backend.decoder.decode([word])) if backend.decoder else word
