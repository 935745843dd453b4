"""A second language for the tokenizers of `vocab_tokenizers`: other letters and words, some shared."""

from __future__ import annotations

from functools import cache

from vocab_tokenizers import sentences

FOREIGN = str.maketrans({"a": "ä", "o": "ö", "t": "ß", "s": "k"})


@cache
def foreign(count: int = 150, seed: int = 5) -> tuple[str, ...]:
    """Sentences whose words consist of letters that the tokenizers know and of letters that they do not."""
    return tuple(sentence.translate(FOREIGN) for sentence in sentences(seed, count))


@cache
def mixed(count: int = 150) -> tuple[str, ...]:
    """New words of the letters and syllables of the old language."""
    return sentences(11, count)
