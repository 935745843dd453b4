"""Which words contain a token: what HyperOFA's network reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Bags:
    """Word numbers per token, ascending.

    Attributes:
        flat: Word numbers, one token after the other.
        starts: `(V,)` where each token's begin.
        sizes: `(V,)` how many it has; special tokens have none.
    """

    flat: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    def __getitem__(self, token: int) -> np.ndarray:
        start = self.starts[token]
        return self.flat[start : start + self.sizes[token]]


def token_bags(words: Sequence[str], tokenizer: PreTrainedTokenizerFast, limit: int) -> Bags:
    """For each token the first `limit` words whose tokenisation, with or without a space before, contains it.

    Args:
        words: The words, the most frequent first.
        tokenizer: Tokenizer whose tokens are wanted, by id.
        limit: Most words of a bag.
    """
    size = max(tokenizer.get_vocab().values()) + 1
    seen = [np.empty((0, 2), dtype=np.int64)]
    for variant in (list(words), [" " + word for word in words]):
        for start in range(0, len(variant), 16384):
            ids = tokenizer(
                variant[start : start + 16384], add_special_tokens=False, return_attention_mask=False
            )["input_ids"]
            lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
            flat = np.fromiter((i for piece in ids for i in piece), np.int64, int(lengths.sum()))
            seen.append(np.stack([flat, np.repeat(np.arange(start, start + len(ids)), lengths)], axis=1))
    pairs = np.concatenate(seen)
    pairs = pairs[~np.isin(pairs[:, 0], tokenizer.all_special_ids)]
    key = np.unique(pairs[:, 0] * max(1, len(words)) + pairs[:, 1])  # by token, then by word
    token, word = np.divmod(key, max(1, len(words)))
    sizes = np.bincount(token, minlength=size)
    rank = np.arange(len(token)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    kept = rank < limit
    sizes = np.minimum(sizes, limit)
    return Bags(word[kept], np.cumsum(sizes) - sizes, sizes)


def by_length(sizes: np.ndarray, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """All positions once, in random batches of similar sizes: little is padded.

    Positions are shuffled, cut into stretches of 40 batches, and sorted by size within a stretch.
    """
    order = rng.permutation(len(sizes))
    for start in range(0, len(order), 40 * batch):
        stretch = order[start : start + 40 * batch]
        stretch = stretch[np.argsort(sizes[stretch], kind="stable")]
        for begin in range(0, len(stretch), batch):
            yield stretch[begin : begin + batch]


def thinned(bag: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """With probability one half, a random half to all of a bag of more than four words, in random order."""
    if len(bag) <= 4 or rng.random() >= 0.5:
        return bag
    count = max(1, int(len(bag) * rng.uniform(0.5, 1.0)))
    return rng.choice(bag, count, replace=False)
