"""Where the entries of axes and the layers of stacks come from: what every surgery on a shape is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from warmstart.foundation.errors import UserError


@dataclass(frozen=True, eq=False)
class AxisMap:
    """How the entries of one axis group of a new model come from those of the old one.

    `W' = O W I^T`: weights that produce the axis take rows by `O`, weights that consume it take columns by
    `I`. Both have one nonzero per row here, so that nothing is multiplied where nothing changes:
    `O[j, index[j]] = 1` and `I[j, index[j]] = share[j]`. A consumer reads what it read before if the shares
    of all copies of an entry add up to one.

    Attributes:
        index: `(m,)` old entry of each new one; -1 for an entry without an origin.
        share: `(m,)` factor on the weights that consume the entry.
        above: `(m,)` bool: produced weights come from the layer above (bert2BERT's advanced initialisation);
            None for none.
        fill: What produced weights get in entries without an origin: `zero`, or the `mean` of the old
            entries, which keeps the statistics of a LayerNorm.
        noise: Standard deviation of consumed weights in entries without an origin, as a share of the
            deviation of the whole tensor; 0 leaves them zero.
        joined: `(n,)` new entry whose consumer takes in that of each old one (-1: none), so that consumers
            of entries that are alike add up; None where consumers follow `index` as well.
    """

    index: np.ndarray
    share: np.ndarray
    above: np.ndarray | None = None
    fill: Literal["zero", "mean"] = "zero"
    noise: float = 0.0
    joined: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.index.ndim != 1 or self.share.shape != self.index.shape:
            raise ValueError(f"index {self.index.shape} and share {self.share.shape} must be equally long")

    def __len__(self) -> int:
        return len(self.index)

    def is_identity(self, size: int) -> bool:
        """Whether an axis of `size` entries stays as it is."""
        return (
            len(self.index) == size
            and self.above is None
            and self.joined is None
            and bool((self.index == np.arange(size)).all() and (self.share == 1).all())
        )

    @property
    def new(self) -> np.ndarray:
        """`(m,)` bool: entries without an origin."""
        return np.asarray(self.index < 0)


def keep(size: int) -> AxisMap:
    """The identity on `size` entries."""
    return AxisMap(np.arange(size), np.ones(size))


def select(index: Sequence[int] | np.ndarray, *, scale: float = 1.0) -> AxisMap:
    """Old entries by number, each at most once; consumers are multiplied by `scale`.

    Raises:
        UserError: An entry twice.
    """
    chosen = np.asarray(index, dtype=np.int64)
    if len(np.unique(chosen)) != len(chosen):
        raise UserError("an entry is selected twice", where="shape", fix="use a map that copies")
    return AxisMap(chosen, np.full(len(chosen), scale))


def merge(joined: Sequence[int] | np.ndarray) -> AxisMap:
    """Old entries put together: the first one of each cluster stays, and consumers add up.

    Undoes [`copies`][warmstart.shape.maps.copies]: copies write the same, and the shares of what reads them
    add up to one.

    Args:
        joined: `(n,)` new entry of each old one, 0 … m-1 without gaps.

    Raises:
        UserError: A new entry without an old one.
    """
    joined = np.asarray(joined, dtype=np.int64)
    found, first = np.unique(joined, return_index=True)
    if not np.array_equal(found, np.arange(len(found))):
        raise UserError("a cluster of entries is empty", where="shape")
    return AxisMap(first, np.ones(len(first)), joined=joined)


def copies(index: Sequence[int] | np.ndarray, *, rng: np.random.Generator | None = None) -> AxisMap:
    """Old entries by number, some repeatedly, their consumers split among the copies.

    Args:
        index: `(m,)` old entry of each new one.
        rng: Draws unequal shares, which add up to one all the same: equal copies with equal shares get equal
            gradients for ever. Without it each of c copies has the share 1/c.
    """
    index = np.asarray(index, dtype=np.int64)
    weight = np.ones(len(index)) if rng is None else rng.uniform(0.5, 1.5, len(index))
    total = np.bincount(index, weights=weight)
    return AxisMap(index, weight / total[index])


def pad(old: int, new: int, *, fill: Literal["zero", "mean"] = "zero", noise: float = 1.0) -> AxisMap:
    """The old entries, and behind them ones without an origin."""
    index = np.concatenate([np.arange(old), np.full(new - old, -1)])
    return AxisMap(index, np.ones(new), fill=fill, noise=noise)


def repeated(old: int, new: int) -> np.ndarray:
    """`0 … old-1`, again and again, until there are `new`: entry j copies `j mod old`."""
    return np.arange(new) % old


@dataclass(frozen=True)
class LayerMap:
    """How the layers of one stack come from those of the old one: `W'_l = sum_j weight_lj W_j`.

    Attributes:
        sources: For each new layer, the old layers and their weights.
        silent: New layers whose output projections are zero: such a block of a pre-norm model adds nothing
            and learns from the first step.
    """

    sources: tuple[tuple[tuple[int, float], ...], ...]
    silent: frozenset[int] = field(default_factory=frozenset)

    def __len__(self) -> int:
        return len(self.sources)

    @classmethod
    def of(cls, order: Sequence[int], silent: Sequence[int] = ()) -> LayerMap:
        """New layer i is a copy of the old layer `order[i]`."""
        return cls(tuple(((int(layer), 1.0),) for layer in order), frozenset(silent))

    def origin(self, layer: int) -> int:
        """The old layer that counts most in a new one."""
        return max(self.sources[layer], key=lambda source: abs(source[1]))[0]
