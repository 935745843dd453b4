"""A span of blocks repeated behind itself."""

from __future__ import annotations

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.depth import depths
from warmstart.shape.maps import LayerMap


class SpanSettings(Settings):
    """Which blocks are repeated."""

    start: int | None = Field(default=None, ge=0)
    """First block that is repeated, from 0; the middle of the stack where not given."""


@depths.register(
    "span",
    settings=SpanSettings,
    title="Yi: Open Foundation Models by 01.AI",
    arxiv="2403.04652",
)
def span(settings: SpanSettings, old: int, new: int) -> LayerMap:
    """Depth up-scaling: blocks `start … start+n-1` follow once more behind themselves, n = new - old.

    Yi-9B repeats blocks 12 to 27 of 32, whose output is most similar to their input. Nearly, not exactly,
    function preserving. The report does not say how copies are interleaved; here the span is repeated whole.

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
    start = (old - count) // 2 if settings.start is None else settings.start
    if start + count > old:
        raise UserError(f"blocks {start} to {start + count - 1} are not all there: the stack has {old}")
    return LayerMap.of([*range(start + count), *range(start, old)])
