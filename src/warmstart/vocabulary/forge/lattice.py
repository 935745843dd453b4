"""Substrings of many strings, and all the ways to cut the strings into them, as arrays."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

Edges = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Arrays `(string, start position, stop position, piece)`, one entry per edge."""


class Substrings:
    """All substrings of some strings that occur at least twice, found level by level of their length.

    A substring of n + 1 characters is the pair (substring of its first n, last character), so each level is
    one sort of integers. Ids of single characters come first, in order of code point.

    Attributes:
        characters: Distinct characters.
        frequency: Occurrences of each substring, weighted by `counts`.
    """

    def __init__(self, strings: list[str], counts: np.ndarray, longest: int) -> None:
        self.characters = sorted({character for string in strings for character in string})
        codes, _, room = self._spread(strings)
        weights = np.repeat(counts, [len(string) for string in strings])
        self._text = "".join(strings)
        self._keys: list[np.ndarray] = []
        self._bases = [0]
        found = [np.bincount(codes, weights=weights, minlength=len(self.characters))]
        examples = [np.array([self._text.index(c) for c in self.characters], dtype=np.int64)]
        ids, here, width = codes, np.arange(len(codes)), len(self.characters)
        base = width
        for length in range(2, longest + 1):
            going = room[here] >= length
            ids, here = ids[going], here[going]
            if not len(here):
                break
            keys = ids.astype(np.int64) * width + codes[here + length - 1]
            unique, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
            frequency = np.bincount(inverse, weights=weights[here])
            kept = frequency > 1
            rank = np.where(kept, np.cumsum(kept) - 1 + base, -1)
            found.append(frequency[kept])
            examples.append(here[first[kept]])
            self._keys.append(unique[kept])
            self._bases.append(base)
            ids = rank[inverse]
            ids, here = ids[ids >= 0], here[ids >= 0]
            base += int(kept.sum())
        self.frequency = np.concatenate(found)
        self._example = np.concatenate(examples)
        self._length = np.repeat(np.arange(1, len(found) + 1), [len(level) for level in found])

    def choose(self, limit: int) -> np.ndarray:
        """Ids of all characters, and of the `limit` best longer substrings by frequency times length."""
        characters = len(self.characters)
        value = self.frequency[characters:] * self._length[characters:]
        order = np.argsort(-value, kind="stable")[:limit] + characters
        return np.concatenate([np.arange(characters), order])

    def strings(self, ids: np.ndarray) -> list[str]:
        """The substrings themselves."""
        starts, lengths = self._example[ids].tolist(), self._length[ids].tolist()
        return [self._text[start : start + length] for start, length in zip(starts, lengths)]

    def edges(self, strings: list[str], number: np.ndarray) -> Edges:
        """Where the pieces occur in `strings`.

        Args:
            strings: Texts over the same characters.
            number: Piece number of each substring id; -1 where it is no piece.

        Returns:
            Arrays `(word, start, stop, piece)`.
        """
        codes, begins, room = self._spread(strings)
        word = np.repeat(np.arange(len(strings), dtype=np.int32), [len(string) for string in strings])
        offset = np.arange(len(codes), dtype=np.int32) - begins
        ids, here = codes.astype(np.int64), np.arange(len(codes))
        parts = []
        for length in range(1, len(self._keys) + 2):
            if length > 1:
                going = room[here] >= length
                ids, here = ids[going], here[going]
                table = self._keys[length - 2]
                if not len(table):
                    break
                keys = ids * len(self.characters) + codes[here + length - 1]
                place = np.searchsorted(table, keys)
                known = (place < len(table)) & (table[np.minimum(place, len(table) - 1)] == keys)
                ids, here = place[known] + self._bases[length - 1], here[known]
            if not len(here):
                break
            piece = number[ids]
            wanted = piece >= 0
            at = here[wanted]
            parts.append((word[at], offset[at], offset[at] + length, piece[wanted]))
        word, start, stop, piece = (np.concatenate([part[i] for part in parts]) for i in range(4))
        return word, start, stop, piece

    def _spread(self, strings: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Character code, first index of the own string, and characters left in it, per character."""
        points = np.frombuffer("".join(strings).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        alphabet = np.array([ord(character) for character in self.characters], dtype=np.uint32)
        sizes = np.array([len(string) for string in strings], dtype=np.int32)
        ends = np.cumsum(sizes, dtype=np.int32)
        begins = np.repeat(ends - sizes, sizes)
        room = np.repeat(ends, sizes) - np.arange(len(points), dtype=np.int32)
        return np.searchsorted(alphabet, points).astype(np.int32), begins, room


@dataclass(frozen=True)
class Lattice:
    """All ways to cut a list of strings into pieces: edges between the gaps of characters.

    Attributes:
        begin: Node where each edge starts, `(edges,)`.
        end: Node where it ends.
        piece: Piece that it stands for.
        start: Position of its begin within the string.
        stop: Position of its end; edges are sorted by it, then by end node.
        word: String that it belongs to.
        back: Order of the edges from the last start position to the first, then by begin node.
        first: First node of each string, `(strings,)`.
        last: Last node of each string.
    """

    begin: np.ndarray
    end: np.ndarray
    piece: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    word: np.ndarray
    back: np.ndarray
    first: np.ndarray
    last: np.ndarray

    @classmethod
    def build(cls, edges: Edges, lengths: list[int]) -> Lattice:
        """From the edges of [`Substrings.edges`][warmstart.vocabulary.forge.lattice.Substrings.edges]."""
        word, starts, stops, piece = (a.astype(np.int32) for a in edges)
        sizes = np.array(lengths, dtype=np.int32) + 1
        last = np.cumsum(sizes, dtype=np.int32) - 1
        first = last - sizes + 1
        order = np.lexsort((first[word] + stops, stops))
        piece, starts, stops, word = (a[order] for a in (piece, starts, stops, word))
        begins, ends = first[word] + starts, first[word] + stops
        back = np.lexsort((begins, -starts)).astype(np.int32)
        return cls(begins, ends, piece, starts, stops, word, back, first, last)

    def proper(self, lengths: list[int]) -> Lattice:
        """The lattice without edges that span a whole string."""
        return self._kept(self.stop - self.start < np.array(lengths, dtype=np.int32)[self.word])

    def only(self, alive: np.ndarray) -> Lattice:
        """The lattice without the edges of dead pieces."""
        return self._kept(alive[self.piece])

    def _kept(self, kept: np.ndarray) -> Lattice:
        if kept.all():
            return self
        position = np.cumsum(kept, dtype=np.int32) - 1
        back = position[self.back[kept[self.back]]]
        arrays = [a[kept] for a in (self.begin, self.end, self.piece, self.start, self.stop, self.word)]
        begin, end, piece, start, stop, word = arrays
        return Lattice(begin, end, piece, start, stop, word, back, self.first, self.last)

    def expected(self, score: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Expected occurrences of each piece `(pieces,)`, strings weighted by `counts`."""
        edge = score[self.piece]
        forward = np.full(int(self.last[-1]) + 1, -np.inf)
        backward = forward.copy()
        forward[self.first], backward[self.last] = 0.0, 0.0
        for part in _runs(self.stop):
            _accumulate(forward, self.end[part], forward[self.begin[part]] + edge[part])
        begin, end, against = self.begin[self.back], self.end[self.back], edge[self.back]
        for part in _runs(self.start[self.back]):
            _accumulate(backward, begin[part], backward[end[part]] + against[part])
        total = forward[self.last]
        weight = np.exp(forward[self.begin] + edge + backward[self.end] - total[self.word])
        return np.bincount(self.piece, weights=weight * counts[self.word], minlength=len(score))

    def best(self, score: np.ndarray) -> np.ndarray:
        """Log-probability of the best segmentation of each string; -inf where there is none."""
        best = np.full(int(self.last[-1]) + 1, -np.inf)
        best[self.first] = 0.0
        edge = score[self.piece]
        for part in _runs(self.stop):
            nodes = self.end[part]
            heads = np.flatnonzero(np.r_[True, nodes[1:] != nodes[:-1]])
            best[nodes[heads]] = np.maximum.reduceat(best[self.begin[part]] + edge[part], heads)
        return best[self.last]


def _runs(values: np.ndarray) -> list[slice]:
    """Stretches of equal values."""
    bounds = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    return [slice(a, b) for a, b in itertools.pairwise(bounds) if b > a]


def _accumulate(value: np.ndarray, nodes: np.ndarray, incoming: np.ndarray) -> None:
    """`value[n] = log sum exp` of the incoming edges of n; `nodes` is sorted."""
    if not len(nodes):
        return
    heads = np.flatnonzero(np.r_[True, nodes[1:] != nodes[:-1]])
    top = np.maximum.reduceat(incoming, heads)
    sizes = np.diff(np.r_[heads, len(nodes)])
    total = np.add.reduceat(np.exp(incoming - np.repeat(top, sizes)), heads)
    value[nodes[heads]] = top + np.log(total)
