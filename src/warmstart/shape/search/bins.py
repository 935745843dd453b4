"""Bins of parameter counts, inside which a search stays."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from warmstart.foundation.errors import UserError


class Bin(NamedTuple):
    """Parameter counts from `low` to `high`, both included."""

    low: float
    high: float

    def __contains__(self, count: object) -> bool:
        return isinstance(count, int) and self.low <= count <= self.high

    def __str__(self) -> str:
        return f"{self.low:,.0f} to {self.high:,.0f} parameters"


EVERYTHING = Bin(0, math.inf)


def bins_of(wanted: Sequence[tuple[float, float]], whole: int) -> tuple[Bin, ...]:
    """Bins as they are written in settings: counts, or where both ends are at most 1 shares of the source.

    Args:
        wanted: Lowest and highest of each.
        whole: Parameters of the source.

    Raises:
        UserError: Ends the wrong way round.
    """
    found = []
    for low, high in wanted:
        if not 0 <= low < high:
            raise UserError(
                f"a bin from {low:g} to {high:g} holds nothing", where="bins", fix="write the lower end first"
            )
        scale = whole if high <= 1 else 1
        found.append(Bin(low * scale, high * scale))
    return tuple(found)


def linear_bins(low: float, high: float, count: int) -> tuple[Bin, ...]:
    """`count` bins of equal width that cover everything from `low` to `high`."""
    width = (high - low) / count
    ends = [*(low + width * i for i in range(count)), high]
    return tuple(Bin(a, b) for a, b in itertools.pairwise(ends))
