"""Sums of what models changed in their base."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from warmstart.foundation.settings import Settings
from warmstart.shape.merge import Tensors, merges

if TYPE_CHECKING:
    import torch


class ChangeSettings(Settings):
    """How changes of the base are added."""

    scale: float = 1.0
    """Factor on the merged change; a parameter `lambda` of the merge goes before it."""
    normalize: bool = False
    """Divide by the sum of the weights."""


@merges.register(
    "task-arithmetic",
    settings=ChangeSettings,
    title="Editing Models with Task Arithmetic",
    arxiv="2212.04089",
)
def task_arithmetic(settings: ChangeSettings, tensors: Tensors) -> Iterator[torch.Tensor]:
    """`x_base + scale * sum_i w_i (x_i - x_base)`; negative weights forget a task."""
    weights = tensors.weighted()
    scale = tensors.shared.get("lambda", settings.scale)
    if settings.normalize and (total := sum(weights)):
        scale /= total
    for base, *parts in zip(tensors.need_base()(), *(change() for change in tensors.changes())):
        for part, weight in zip(parts, weights):
            base = base + part * (scale * weight)
        yield base
