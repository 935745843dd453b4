"""Words of a text and a random choice among them, both independent of any tokenizer."""

from __future__ import annotations

import functools
import hashlib
import math
from typing import Any

NO_SPACES = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
"""Scripts written without spaces between words (a set for the `regex` package)."""


@functools.cache
def _pattern() -> Any:
    import regex

    letters = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{NO_SPACES}]]+"
    return regex.compile(rf"[{NO_SPACES}]\p{{M}}*|{letters}", regex.V1)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end (characters) of each word of `text`.

    A word is a longest run of letters, marks, digits and underscores; in scripts without spaces it is one
    character with its marks. Punctuation is no word.
    """
    return [match.span() for match in _pattern().finditer(text)]


def chosen_words(
    text: str, *, fraction: float = 0.15, subset: int = 0, seed: int = 0
) -> list[tuple[int, int]]:
    """A random share of the words of `text`, the same for every tokenizer and whatever texts stand around it.

    The words are shuffled by a generator seeded with the text itself and `seed`, and dealt into subsets of
    `ceil(fraction * words)`; together the subsets `0 … ceil(1 / fraction) - 1` hold each word exactly once.

    Args:
        text: The document.
        fraction: Share of the words in one subset.
        subset: Which subset; one past the last is empty.
        seed: Another seed gives another shuffle.

    Returns:
        Spans in characters, in order of the text.
    """
    import numpy as np

    spans = word_spans(text)
    if not spans:
        return []
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    order = np.random.default_rng([seed, int.from_bytes(digest, "little")]).permutation(len(spans))
    size = math.ceil(fraction * len(spans))
    return [spans[i] for i in sorted(order[subset * size : (subset + 1) * size])]
