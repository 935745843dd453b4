"""Byte-pair merging of short strings, as the library does it, and merges that lead to a given string."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

Merge = tuple[str, str]


class Merges:
    """Merges in their order; the earlier one is always applied first, on ties the one further left.

    Args:
        merges: Pairs of symbols.
    """

    def __init__(self, merges: Iterable[Merge] = ()) -> None:
        self._rank: dict[Merge, int] = {}
        for merge in merges:
            self.append(merge)

    def append(self, merge: Merge) -> None:
        """Put a merge behind all others, where it is not among them."""
        self._rank.setdefault(merge, len(self._rank))

    def remove_last(self, count: int) -> None:
        """Take the last merges off again."""
        for _ in range(count):
            self._rank.popitem()

    def cut(self, piece: str) -> list[str]:
        """Symbols that are left of the characters of `piece` when no merge applies any more."""
        return self.applied(piece)[0]

    def applied(self, piece: str) -> tuple[list[str], list[Merge]]:
        """The same, with the merges that were applied, in order."""
        parts, done = list(piece), []
        while len(parts) > 1:
            ranks = [self._rank.get(pair, len(self._rank)) for pair in itertools.pairwise(parts)]
            best = min(ranks)
            if best == len(self._rank):
                break
            place = ranks.index(best)
            done.append((parts[place], parts[place + 1]))
            parts[place : place + 2] = ["".join(done[-1])]
        return parts, done


def first_merge(parts: Sequence[str], costs: Callable[[str], float]) -> Merge | None:
    """The first merge on the cheapest way from adjacent parts to one string.

    The price of a way is the sum over the strings that appear before the last one; on ties the left end grows
    first. Only the first merge is told, because a pair may occur more than once and leave other parts.

    Args:
        parts: At least two symbols.
        costs: Price of having a string as a symbol; infinite where it must not be one.

    Returns:
        Two adjacent parts; None where every way is barred.
    """
    size = len(parts)
    strings = {(i, j): "".join(parts[i : j + 1]) for i in range(size) for j in range(i, size)}
    best: dict[tuple[int, int], tuple[float, int]] = {(i, i): (0.0, i) for i in range(size)}
    for length in range(2, size + 1):
        for i in range(size - length + 1):
            j = i + length - 1
            own = 0.0 if length == size else costs(strings[i, j])
            ways = [(best[i, m][0] + best[m + 1, j][0] + own, m) for m in range(j - 1, i - 1, -1)]
            best[i, j] = min(ways, key=lambda way: way[0])
    if best[0, size - 1][0] == float("inf"):
        return None

    start, stop = 0, size - 1
    while stop - start > 1:  # down the tree to its first pair: the left half where that is more than one part
        middle = best[start, stop][1]
        start, stop = (start, middle) if middle > start else (middle + 1, stop)
    return parts[start], parts[stop]
