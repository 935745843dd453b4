"""All possible links between the units of sentence pairs, held in little memory.

A link joins a place in the source sentence with one in the target sentence. Those of a sentence pair of
lengths m and n are the cells of an `(m, n)` table, row by row. Of each link only the number of its pair of
types is held; places follow from the lengths, and the prior is held once per pair of lengths.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from warmstart.foundation.errors import UserError

Direction = Literal["to target", "to source"]
"""Which side is generated, unit by unit, from the other."""

BLOCK = 1 << 18
"""Links worked on at a time, but for a longer sentence pair: few enough for a processor's cache."""
SORTED = 1 << 22
"""Links whose pairs of types are numbered at a time."""


@dataclass(frozen=True)
class Block:
    """The links of some sentence pairs, L of them.

    Attributes:
        pair: `(L,)` number of the pair of types.
        prior: `(L,)` float32, not normalised.
        source: `(L,)` place of the source unit in the block.
        target: `(L,)` place of the target unit.
        source_types: Type at each place.
        target_types: Likewise.
    """

    pair: np.ndarray
    prior: np.ndarray
    source: np.ndarray
    target: np.ndarray
    source_types: np.ndarray
    target_types: np.ndarray

    def expected(self, direction: Direction, theta: np.ndarray, null: np.ndarray, share: float) -> np.ndarray:
        """Probability of each link, `(L,)` float64: those of one taking unit and NULL sum to one.

        Args:
            direction: Which side takes.
            theta: Probability that the giving type of a pair generates the taking one, `(pairs,)`.
            null: Probability of NULL and that it generates a type, by taking type.
            share: Prior probability of the units other than NULL.
        """
        taken = direction == "to target"
        place, types = (self.target, self.target_types) if taken else (self.source, self.source_types)
        prior = self.prior * (share / np.bincount(place, weights=self.prior))[place]
        prior *= theta[self.pair]
        prior /= (np.bincount(place, weights=prior) + null[types])[place]
        return prior


@dataclass(frozen=True)
class Links:
    """All links of sentence pairs, in the order of the text.

    Attributes:
        pair: `(links,)` int32 number of each link's pair of types.
        types: Source and target type of each pair, `(pairs,)` each, ascending.
        units: Types of all source and of all target units, one sentence after the other.
        lengths: `(sentences, 2)` units on either side.
        priors: Float32 priors of all shapes, one table after the other.
        prior_of: `(sentences,)` where the table of each begins.
    """

    pair: np.ndarray
    types: tuple[np.ndarray, np.ndarray]
    units: tuple[np.ndarray, np.ndarray]
    lengths: np.ndarray
    priors: np.ndarray
    prior_of: np.ndarray

    @classmethod
    def of(
        cls,
        sentences: Iterable[tuple[Sequence[int], Sequence[int]]],
        target_size: int,
        *,
        diagonal: float,
        max_links: int,
        max_length: int,
    ) -> Links:
        """Links of sentence pairs up to `max_links`; pairs with an empty or a longer side are left out.

        Args:
            sentences: Pairs of id sequences (source, target).
            target_size: Number of target ids.
            diagonal: Tension of the prior `exp(-diagonal |i/m - j/n|)`; 0 for a uniform one.
            max_links: Reading stops before the sentence pair that goes beyond.
            max_length: Units of a side at most.

        Raises:
            UserError: No usable sentence pair.
        """
        held, sizes, total = (array("i"), array("i")), array("i"), 0
        for left, right in sentences:
            m, n = len(left), len(right)
            if not m or not n or max(m, n) > max_length:
                continue
            if total and total + m * n > max_links:
                break
            held[0].extend(left)
            held[1].extend(right)
            sizes.extend((m, n))
            total += m * n
        if not total:
            raise UserError(
                "there is no usable sentence pair",
                where="parallel",
                fix="give sentence pairs with text on both sides",
            )
        lengths = np.frombuffer(sizes, dtype=np.intc).reshape(-1, 2).astype(np.int64)
        units = np.frombuffer(held[0], dtype=np.intc), np.frombuffer(held[1], dtype=np.intc)
        shapes, shape_of = np.unique(lengths, axis=0, return_inverse=True)
        tables = [_prior(int(m), int(n), diagonal) for m, n in shapes]
        starts = np.concatenate([[0], np.cumsum(shapes.prod(axis=1))])[:-1]
        pair, keys = _numbered(units, lengths, target_size)
        source, target = np.divmod(keys, target_size)
        types = source.astype(np.int32), target.astype(np.int32)
        return cls(pair, types, units, lengths, np.concatenate(tables), starts[shape_of.ravel()])

    def blocks(self) -> Iterator[Block]:
        """The links in pieces."""
        link = 0
        for part, (source, target), (left, right) in _pieces(self.units, self.lengths, BLOCK):
            m, n = part.T
            cells = m * n
            size = int(cells.sum())
            order = np.arange(size)
            ends, rows = np.cumsum(cells), np.repeat(n, m)
            prior = np.repeat(self.prior_of[left:right] - (ends - cells), cells) + order
            row_ends, column = np.cumsum(rows), np.repeat(np.cumsum(n) - n, m)
            yield Block(
                self.pair[link : link + size],
                self.priors[prior],
                np.repeat(np.arange(len(source)), rows),
                np.repeat(column - (row_ends - rows), rows) + order,
                source,
                target,
            )
            link += size


def _prior(m: int, n: int, diagonal: float) -> np.ndarray:
    if not diagonal:
        return np.ones(m * n, dtype=np.float32)
    distance = np.abs((np.arange(m) + 0.5)[:, None] / m - (np.arange(n) + 0.5) / n)
    return np.exp(-diagonal * distance).astype(np.float32).ravel()


def _pieces(
    units: tuple[np.ndarray, np.ndarray], lengths: np.ndarray, size: int
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray], tuple[int, int]]]:
    """Runs of sentences with about `size` links: lengths, units of both sides, first and last sentence."""
    ends = np.cumsum(lengths.prod(axis=1))
    marks = np.unique(np.searchsorted(ends, np.arange(size, ends[-1] + size, size), side="right"))
    marks = np.unique(np.concatenate([[0], marks, [len(lengths)]]))
    places = np.concatenate([np.zeros((1, 2), dtype=np.int64), np.cumsum(lengths, axis=0)])
    for left, right in zip(marks[:-1].tolist(), marks[1:].tolist()):
        cut = [side[slice(*places[[left, right], k])] for k, side in enumerate(units)]
        yield lengths[left:right], (cut[0], cut[1]), (left, right)


def _numbered(
    units: tuple[np.ndarray, np.ndarray], lengths: np.ndarray, target_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Number of each link's pair of types, and all pairs, ascending, as `source * target_size + target`."""
    kind = np.int32 if (int(units[0].max()) + 1) * target_size < 2**31 else np.int64
    pair = np.empty(int(lengths.prod(axis=1).sum()), dtype=np.int32)
    known: list[tuple[slice, np.ndarray]] = []
    at = 0
    for part, (source, target), _ in _pieces(units, lengths, SORTED):
        m, n = part.T
        rows = np.repeat(n, m)
        size = int(rows.sum())
        column = np.repeat(np.cumsum(n) - n, m) - (np.cumsum(rows) - rows)
        keys = np.repeat(np.multiply(source, target_size, dtype=kind), rows)
        keys += target[np.repeat(column, rows) + np.arange(size)]
        found, number = np.unique(keys, return_inverse=True)
        place, at = slice(at, at + size), at + size
        pair[place] = number
        known.append((place, found))
    keys = known[0][1] if len(known) == 1 else np.unique(np.concatenate([found for _, found in known]))
    for place, found in known if len(known) > 1 else ():
        pair[place] = np.searchsorted(keys, found).astype(np.int32)[pair[place]]
    return pair, keys
