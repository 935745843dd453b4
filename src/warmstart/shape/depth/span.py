"""A span of blocks repeated behind itself."""

from __future__ import annotations

from typing import Literal

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.depth import depths
from warmstart.shape.maps import LayerMap


class SpanSettings(Settings):
    """Which blocks are repeated."""

    start: Literal["middle", "most-similar", "least-similar", "random"] | int | None = None
    """First block that is repeated, from 0; or how it is found: in the `middle` of the stack (also where not
    given), where blocks change their input least (`most-similar`, as in the source) or most
    (`least-similar`), both of which need text, or `random`."""

    @property
    def reads_text(self) -> bool:
        """Whether blocks are compared on text."""
        return self.start in ("most-similar", "least-similar")


@depths.register(
    "span",
    settings=SpanSettings,
    title="Yi: Open Foundation Models by 01.AI",
    arxiv="2403.04652",
    tags=("random",),
)
def span(
    settings: SpanSettings,
    old: int,
    new: int,
    similarity: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
) -> LayerMap:
    """Depth up-scaling: blocks `start … start+n-1` follow once more behind themselves, n = new - old.

    Yi-9B repeats blocks 12 to 27 of 32, whose output is most similar to their input. `most-similar` takes the
    n neighbours with the highest sum of mean cosines (the first ones of equals), see
    [`block_similarity`][warmstart.shape.similarity.block_similarity]. Nearly, not exactly, function
    preserving. The report does not say how copies are interleaved; here the span is repeated whole.

    Args:
        settings: Where the span starts.
        old: Number of blocks.
        new: Number of blocks to reach.
        similarity: `(old,)` mean cosines, for a start that is found by them.
        rng: For a random start.

    Raises:
        UserError: More new blocks than the stack has, or a span that leaves it.
    """
    count = new - old
    if count > old:
        raise UserError(
            f"a span repeats at most {old} blocks, and {count} are to be added",
            where="depth",
            fix="take the way `stack`",
        )
    start = _start(settings, old, count, similarity, rng)
    if not 0 <= start <= old - count:
        raise UserError(f"blocks {start} to {start + count - 1} are not all there: the stack has {old}")
    return LayerMap.of([*range(start + count), *range(start, old)])


def _start(
    settings: SpanSettings,
    old: int,
    count: int,
    similarity: np.ndarray | None,
    rng: np.random.Generator | None,
) -> int:
    if isinstance(settings.start, int):
        return settings.start
    if settings.start == "random":
        assert rng is not None
        return int(rng.integers(old - count + 1))
    if settings.reads_text:
        sign = 1 if settings.start == "most-similar" else -1
        sums = np.convolve(sign * np.asarray(similarity, dtype=np.float64), np.ones(count), "valid")
        return int(np.argmax(sums))
    return (old - count) // 2
