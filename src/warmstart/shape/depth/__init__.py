"""Ways to choose the layers of a deeper or shallower model, one file each.

A way is `order(settings, old, new) -> LayerMap`: how many layers there are and how many there shall be, to
the origin of each new one. Ways with the tag `shrinks` leave layers out; those with the tag `text` get a
fourth argument, the [`block_similarity`][warmstart.shape.similarity.block_similarity] of the stack's layers.
Ways that make a model deeper get it as `similarity` where their settings have a true `reads_text`, and those
with the tag `random` a generator as `rng`.
"""

from __future__ import annotations

from collections.abc import Callable

from warmstart.foundation.errors import UserError
from warmstart.foundation.registry import Registry
from warmstart.shape.maps import LayerMap

Order = Callable[..., LayerMap]
depths: Registry[Order] = Registry("depth", "warmstart.shape.depth")


def fewer(way: str, old: int, new: int) -> None:
    """Refuse a way that only leaves layers out where there shall be more."""
    if new > old:
        raise UserError(
            f"the way {way} leaves layers out, and {old} would become {new}",
            where="depth",
            fix="take identity, stack, interleave or span",
        )
