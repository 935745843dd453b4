"""Unigram vocabularies by EM and pruning: the same text always gives the same pieces and scores.

After Kudo, "Subword Regularization" (arXiv 1804.10959), as SentencePiece does it. The trainer of the
`tokenizers` library sums in the order of a randomly seeded hash table; where pieces tie, as they often do on
little text, its vocabulary and scores differ from run to run, and with them every model trained afterwards.
Here all sums run in a fixed order, over arrays of lattice edges. Differences: seeds are counted over distinct
words rather than by a suffix array, and pruning weighs a piece by its expected count where SentencePiece
takes its count in the best segmentation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from warmstart.vocabulary.forge.lattice import Lattice, Substrings

MAX_WORDS = 500_000  # most frequent distinct words that are looked at
MAX_CHARACTERS = 48  # longer stretches without a break are cut
SEEDS_PER_TOKEN = 8
SHRINK = 0.75
MARGIN = 1.1
LEAST = 0.5  # expected occurrences below which a piece is dropped in the M-step


def train_unigram(
    words: Counter[str], vocab_size: int, *, max_piece_length: int = 16
) -> list[tuple[str, float]]:
    """Pieces and their log-probabilities, the most probable first.

    Args:
        words: Pre-tokenised words (with their `▁`) and how often they occur.
        vocab_size: Pieces wanted; every character of the text is among them, so there may be more than
            asked for, or fewer when the text supports no more.
        max_piece_length: Longest piece in characters.
    """
    strings, counts = _settled(words)
    if not strings:
        return []
    trie = Substrings(strings, counts, max_piece_length)
    characters = len(trie.characters)
    chosen = trie.choose(SEEDS_PER_TOKEN * vocab_size)
    pieces = trie.strings(chosen)
    frequency = trie.frequency[chosen] * np.array([len(piece) for piece in pieces])
    number = np.full(len(trie.frequency), -1, dtype=np.int32)
    number[chosen] = np.arange(len(chosen), dtype=np.int32)
    lattice = Lattice.build(trie.edges(strings, number), [len(s) for s in strings])
    lengths = [len(piece) for piece in pieces]
    inner = Lattice.build(trie.edges(pieces, number), lengths).proper(lengths)
    score = np.log(frequency / frequency.sum())
    alive = np.ones(len(pieces), dtype=bool)
    required = np.arange(len(pieces)) < characters
    goal = max(vocab_size, characters)
    while True:
        for _ in range(2):
            expected = lattice.expected(score, counts)
            alive &= required | (expected >= LEAST)
            score = _maximise(expected, alive, required)
            lattice, inner = lattice.only(alive), inner.only(alive)
        if alive.sum() <= max(goal, int(MARGIN * goal)):
            break
        keep = max(int(MARGIN * goal), int(SHRINK * alive.sum()))
        rival = inner.best(score)
        loss = np.full(len(pieces), np.inf)  # required pieces stay
        free = alive & ~required
        loss[free] = lattice.expected(score, counts)[free] * (score[free] - rival[free])
        _keep_best(alive, loss, keep)
        score = np.where(alive, score, -np.inf)
        lattice, inner = lattice.only(alive), inner.only(alive)
    ranking = np.where(required, np.inf, score)
    _keep_best(alive, ranking, goal)
    final = sorted(np.flatnonzero(alive).tolist(), key=lambda i: (-score[i], pieces[i]))
    return [(pieces[i], float(score[i])) for i in final]


def count_words(texts: Iterable[str], tokenizer: Any) -> Counter[str]:
    """Words as the tokenizer's normaliser and pre-tokeniser make them, and how often each occurs."""
    normaliser, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
    words: Counter[str] = Counter()
    for text in texts:
        seen = normaliser.normalize_str(text) if normaliser else text
        if splitter is None:
            words[seen] += 1
        else:
            words.update(word for word, _ in splitter.pre_tokenize_str(seen))
    return words


def _settled(words: Counter[str]) -> tuple[list[str], np.ndarray]:
    cut: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(0, len(word), MAX_CHARACTERS):
            cut[word[start : start + MAX_CHARACTERS]] += count
    ordered = sorted(cut.items(), key=lambda item: (-item[1], item[0]))[:MAX_WORDS]
    return [word for word, _ in ordered], np.array([count for _, count in ordered], dtype=np.float64)


def _maximise(expected: np.ndarray, alive: np.ndarray, required: np.ndarray) -> np.ndarray:
    """Scores from expected counts, the sparse (digamma) form that SentencePiece uses."""
    from scipy.special import digamma

    counts = np.where(alive, np.where(required, np.maximum(expected, LEAST), expected), 0.0)
    score = np.full(len(counts), -np.inf)
    score[alive] = digamma(counts[alive]) - digamma(counts.sum())
    return score


def _keep_best(alive: np.ndarray, value: np.ndarray, count: int) -> None:
    """Keep the `count` living pieces of the highest value; on ties the earlier one."""
    ids = np.flatnonzero(alive)
    order = np.argsort(-value[ids], kind="stable")
    alive[ids[order[count:]]] = False
