"""Random tokenizers of a text: a hypernetwork sees a new one at each step.

A sampled tokenizer is a Unigram model over the most frequent substrings of a few thousand texts, with noise
on the scores (ZeTT, arXiv 2405.07883). It is needed at every step, so everything that does not change is
computed once: the distinct words of the whole text and which substrings each contains. What is left per step
is one sparse product, a partial sort and a trie.

Legend: W distinct words, S substrings, T texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

KEY = 16
"""Longest substring in bytes."""
MAX_WORD = 48
"""Characters after which a stretch without a break is cut."""
_WORDS = r" ?\p{L}[\p{L}\p{M}]*| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def split_words(text: str) -> Iterator[str]:
    """Words with the space before them, numbers, runs of other signs, runs of white space (GPT-2's rule)."""
    import regex

    for word in regex.findall(_WORDS, text.replace("\0", " ")):
        yield from (word[i : i + MAX_WORD] for i in range(0, len(word), MAX_WORD))


@dataclass(frozen=True)
class TextPool:
    """Texts as numbers of words, and the substrings of these words.

    Attributes:
        words: The W distinct words, UTF-8.
        text_words: Word numbers of all texts, one after the other.
        text_ends: `(T,)` where each text ends in `text_words`.
        base: Units of one byte or one character, of which any text can be made; in every sampled vocabulary.
        by_character: Whether they are characters.
        substrings: `(S,)` other substrings of whole characters, up to 16 bytes, that occur at least twice, in
            order of their bytes.
        incidence: `(S, W)` how often each substring stands in each word.
    """

    words: list[bytes]
    text_words: np.ndarray
    text_ends: np.ndarray
    base: list[bytes]
    by_character: bool
    substrings: np.ndarray
    incidence: csr_matrix

    @classmethod
    def build(
        cls, texts: Iterable[str], *, by_character: bool = False, passage: int | None = None
    ) -> TextPool:
        """Take the texts in.

        Args:
            texts: Documents; empty ones are left out.
            by_character: Whether the smallest units are the characters of the texts, with and without a space
                in front, rather than all bytes.
            passage: Characters after which a new text begins within a document.

        Raises:
            UserError: There is no text.
        """
        numbers: dict[str, int] = {}
        flat: list[int] = []
        ends: list[int] = []
        for text in texts:
            size = 0
            for word in split_words(text):
                flat.append(numbers.setdefault(word, len(numbers)))
                size += len(word)
                if passage is not None and size >= passage:
                    ends.append(len(flat))
                    size = 0
            if size:
                ends.append(len(flat))
        if not ends:
            raise UserError("there is no text to sample tokenizers from", fix="check the split of the corpus")
        words = [word.encode("utf-8", "replace") for word in numbers]
        base = [bytes([i]) for i in range(256)]
        if by_character:
            units = {character for word in numbers for character in word}
            units |= {word[:2] for word in numbers if word[0] == " "}
            base = sorted(unit.encode("utf-8", "replace") for unit in units)
        text_words = np.array(flat, np.int64)
        counts = np.bincount(text_words, minlength=len(words))
        substrings, incidence = _substrings(words, counts, set(base))
        return cls(words, text_words, np.array(ends, np.int64), base, by_character, substrings, incidence)

    def __len__(self) -> int:
        return len(self.text_ends)

    @property
    def entries(self) -> int:
        """Number of units and substrings; an entry below `len(base)` is a unit."""
        return len(self.base) + len(self.substrings)

    def string(self, entry: int) -> bytes:
        """Bytes of an entry."""
        return self.base[entry] if entry < len(self.base) else self.substrings[entry - len(self.base)]

    def text(self, index: int) -> np.ndarray:
        """Word numbers of one text."""
        return self.text_words[self.text_ends[index - 1] if index else 0 : self.text_ends[index]]

    def frequencies(self, texts: np.ndarray) -> np.ndarray:
        """`(S,)` how often each substring occurs in these texts (a text given twice counts twice)."""
        seen = np.concatenate([self.text(int(i)) for i in texts])
        found: np.ndarray = self.incidence @ np.bincount(seen, minlength=len(self.words))
        return found

    @cached_property
    def lengths(self) -> np.ndarray:
        """`(S,)` bytes of each substring."""
        return np.char.str_len(self.substrings)


class Noise(NamedTuple):
    """Disturbance of the scores: N(0, s²) with s ~ LogNormal(ln scale, spread); none where scale is 0."""

    scale: float = 1e-5
    spread: float = 4.0


NOISE = Noise()


@dataclass(frozen=True)
class SampledVocabulary:
    """One random tokenizer.

    Attributes:
        entries: `(n,)` entries of the pool; the units first.
        scores: `(n,)` log-probabilities.
    """

    entries: np.ndarray
    scores: np.ndarray

    @classmethod
    def draw(
        cls,
        pool: TextPool,
        texts: np.ndarray,
        size: int,
        *,
        rng: np.random.Generator,
        noise: Noise = NOISE,
        allowed: np.ndarray | None = None,
    ) -> SampledVocabulary:
        """Draw a vocabulary from the substrings of some texts.

        A substring's score is its share of `frequency * length`, plus noise; the best become pieces with
        log-probability log(score). Units have the log-probability of the rarest substring, as in the
        released code. Differences from it: substrings begin and end between characters (there, they end
        anywhere, and begin at every fourth character); a substring whose noised score is not positive is
        left out (there, it is kept with a score by which it is never used); runs of white space compete
        like all others (there, they are always in).

        Args:
            pool: All substrings.
            texts: Texts whose frequencies count.
            size: Pieces in all; fewer where the texts have no more.
            rng: Source of the noise.
            noise: How strong it is.
            allowed: `(S,)` bool; substrings that may be chosen.
        """
        weight = (pool.frequencies(texts) * pool.lengths).astype(np.float64)
        present = np.flatnonzero(weight > 0)
        total = weight[present].sum() if len(present) else 1.0
        share = weight[present] / total
        least = float(np.log(share.min())) if len(present) else 0.0
        deviation = rng.lognormal(np.log(noise.scale), noise.spread) if noise.scale else 0.0
        noised = share + deviation * rng.standard_normal(len(share))
        room = max(0, size - len(pool.base))
        best = np.flatnonzero((noised > 0) if allowed is None else (noised > 0) & allowed[present])
        if len(best) > room:
            best = best[np.argpartition(-noised[best], room - 1)[:room]] if room else best[:0]
        best = np.sort(best)
        units = len(pool.base)
        return cls(
            np.concatenate([np.arange(units), units + present[best]]),
            np.concatenate([np.full(units, least), np.log(noised[best])]),
        )

    def __len__(self) -> int:
        return len(self.entries)

    def segment(self, pool: TextPool, words: np.ndarray) -> list[np.ndarray]:
        """Best segmentation of each word, as positions in `entries`."""
        from tokenizers.models import Unigram

        code = "utf-8" if pool.by_character else "latin-1"  # the latter: one character per byte
        pieces = [(pool.string(int(e)).decode(code), float(s)) for e, s in zip(self.entries, self.scores)]
        model = Unigram(pieces, None, False)
        found = (model.tokenize(pool.words[int(word)].decode(code)) for word in words)
        return [np.array([token.id for token in tokens], np.int64) for tokens in found]


def _substrings(
    words: Sequence[bytes], counts: np.ndarray, without: set[bytes]
) -> tuple[np.ndarray, csr_matrix]:
    """All substrings of whole characters up to 16 bytes that occur at least twice, and in which words."""
    from scipy.sparse import csr_matrix

    sizes = np.fromiter(map(len, words), np.int64, len(words))
    data = np.frombuffer(b"".join(words) + bytes(KEY), np.uint8)
    last = np.cumsum(sizes)
    owner = np.repeat(np.arange(len(words)), sizes)
    room = np.repeat(last, sizes) - np.arange(len(owner))  # bytes from here to the end of the word
    first = (data & 0xC0) != 0x80  # begins a character
    halves, places = [], []
    for length in range(1, KEY + 1):
        start = np.flatnonzero(first[: len(owner)] & (room >= length))
        start = start[(room[start] == length) | first[start + length]]
        window = np.zeros((len(start), KEY), np.uint8)
        window[:, :length] = data[start[:, None] + np.arange(length)]
        halves.append(window.view(">u8").astype(np.uint64))
        places.append(owner[start])
    key, word = np.concatenate(halves), np.concatenate(places)
    order = np.lexsort((key[:, 1], key[:, 0]))
    key, word = key[order], word[order]
    new = np.r_[True, (key[1:] != key[:-1]).any(axis=1)] if len(key) else np.zeros(0, bool)
    number = np.cumsum(new) - 1
    names = np.ascontiguousarray(key[new].astype(">u8")).view(f"S{KEY}").ravel()
    matrix = csr_matrix((np.ones(len(word), np.int32), (number, word)), shape=(len(names), len(words)))
    units = np.array(sorted(without - {b"\0"}), f"S{KEY}")
    kept = np.flatnonzero((matrix @ counts >= 2) & ~np.isin(names, units))
    return names[kept], matrix[kept]
