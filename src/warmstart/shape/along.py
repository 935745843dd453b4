"""One axis of a tensor along its map, by the role that the axis has there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from warmstart.shape.maps import AxisMap

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def produced(tensor: Tensor, dim: int, axis: AxisMap) -> Tensor:
    """Entries that the weight produces: copies of old ones; those without an origin are filled."""
    taken = _taken(tensor, dim, axis)
    if axis.new.any():
        fill = tensor.mean(dim, keepdim=True) if axis.fill == "mean" else tensor.new_zeros(())
        taken = _where_new(taken, dim, axis, fill)
    return taken


def consumed(tensor: Tensor, dim: int, axis: AxisMap, spread: float, rng: torch.Generator) -> Tensor:
    """Entries that the weight reads: old ones times their share; noise or zero where there is no origin.

    Args:
        tensor: Viewed by its axes.
        dim: Which of them.
        axis: Its map.
        spread: Standard deviation of the whole tensor, the unit of the map's noise.
        rng: Draws the noise.
    """
    import torch

    taken = _taken(tensor, dim, axis) if axis.joined is None else _joined(tensor, dim, axis.joined, len(axis))
    if not (axis.share == 1).all():
        wide = torch.promote_types(taken.dtype, torch.float32)
        share = torch.from_numpy(axis.share).to(wide).reshape(_along(taken, dim))
        taken = (taken.to(wide) * share).to(taken.dtype)
    if axis.new.any():
        fill = taken.new_zeros(())
        if axis.noise:
            size = list(taken.shape)
            drawn = torch.randn(size, generator=rng, dtype=torch.float32) * (axis.noise * spread)
            fill = drawn.to(taken.dtype)
        taken = _where_new(taken, dim, axis, fill)
    return taken


def elementwise(tensor: Tensor, dim: int, axis: AxisMap, *, bias: bool) -> Tensor:
    """Gains or biases of a norm: copies; without an origin the mean gain, and no bias."""
    taken = _taken(tensor, dim, axis)
    if axis.new.any():
        fill = tensor.new_zeros(()) if bias else tensor.mean(dim, keepdim=True)
        taken = _where_new(taken, dim, axis, fill)
    return taken


def _taken(tensor: Tensor, dim: int, axis: AxisMap) -> Tensor:
    import torch

    return tensor.index_select(dim, torch.from_numpy(np.maximum(axis.index, 0)))


def _joined(tensor: Tensor, dim: int, joined: np.ndarray, size: int) -> Tensor:
    import torch

    wide = torch.promote_types(tensor.dtype, torch.float32)
    kept = torch.from_numpy(np.flatnonzero(joined >= 0))
    shape = [size if d == dim else n for d, n in enumerate(tensor.shape)]
    source = tensor.index_select(dim, kept).to(wide)
    added = torch.zeros(shape, dtype=wide).index_add_(dim, torch.from_numpy(joined)[kept], source)
    return added.to(tensor.dtype)


def _where_new(taken: Tensor, dim: int, axis: AxisMap, fill: Tensor) -> Tensor:
    import torch

    return torch.where(torch.from_numpy(axis.new).reshape(_along(taken, dim)), fill, taken)


def _along(tensor: Tensor, dim: int) -> list[int]:
    return [-1 if d == dim else 1 for d in range(tensor.ndim)]
