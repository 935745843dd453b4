"""Interpolation along the arc between two models."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.merge import Tensors, merges

if TYPE_CHECKING:
    import torch


class SlerpSettings(Settings):
    """Where on the arc."""

    t: float = 0.5
    """0 is the first model (or the base), 1 the other; a parameter `t` of the merge goes before it."""
    nearly_parallel: float = Field(default=0.9995, gt=0, le=1)
    """From this cosine on, the straight line is taken."""


@merges.register("slerp", settings=SlerpSettings, title="Animating rotation with quaternion curves")
def slerp(settings: SlerpSettings, tensors: Tensors) -> Iterator[torch.Tensor]:
    """`sin((1-t) a) / sin a * x + sin(t a) / sin a * y`, a the angle between the flattened tensors.

    Where they are nearly parallel, or one is zero, `(1-t) x + t y`. The two are the models, or the base and
    the only model. Angles are taken in float64.

    Raises:
        UserError: Not two models.
    """
    import torch

    first = [tensors.base] if tensors.base is not None and len(tensors.models) == 1 else []
    pair = [*first, *tensors.models]
    if len(pair) != 2:
        raise UserError(f"slerp is between two models, and {len(pair)} are given", where="slerp")
    t = tensors.shared.get("t", settings.t)
    dot, squared_x, squared_y = 0.0, 0.0, 0.0
    for x, y in zip(pair[0](), pair[1]()):
        wide_x, wide_y = x.double(), y.double()
        dot += float(torch.dot(wide_x, wide_y))
        squared_x += float(torch.dot(wide_x, wide_x))
        squared_y += float(torch.dot(wide_y, wide_y))
    size = math.sqrt(squared_x * squared_y)
    cosine = max(-1.0, min(1.0, dot / size)) if size else 1.0
    a, b = 1 - t, t
    if abs(cosine) < settings.nearly_parallel:
        angle = math.acos(cosine)
        a, b = math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)
    for x, y in zip(pair[0](), pair[1]()):
        yield x * a + y * b
