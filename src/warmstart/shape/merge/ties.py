"""Trim, elect a sign, merge what agrees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.shape.merge import Pieces, Tensors, merges
from warmstart.shape.merge.task_arithmetic import ChangeSettings

if TYPE_CHECKING:
    import torch


class TiesSettings(ChangeSettings):
    """How changes are trimmed and added."""

    density: float = Field(default=0.2, gt=0, le=1)
    """Share of each tensor's changes that a model keeps, the largest ones; a model's own goes before it."""
    normalize: bool = True
    """Divide each entry by the sum of the weights that agree there (a disjoint mean)."""


@merges.register(
    "ties",
    settings=TiesSettings,
    title="TIES-Merging: Resolving Interference When Merging Models",
    arxiv="2306.01708",
)
def ties(settings: TiesSettings, tensors: Tensors) -> Iterator[torch.Tensor]:
    """Of each model's changes d_i keep the largest; where signs differ, the heavier side wins.

    `s = sign(sum_i w_i d_i)`, and `x_base + scale * sum_{i: sign d_i = s} w_i d_i / sum_{i: sign d_i = s}
    w_i`, entry by entry. Trimming is per tensor, as in the peers' programs; the authors' code trims over all
    weights of a model together.
    """
    trimmed = []
    for change, density in zip(tensors.changes(), tensors.densities):
        share = settings.density if density is None else density
        trimmed.append(_kept(change, threshold(change, share)))
    yield from elected(settings, tensors, trimmed)


def elected(settings: TiesSettings, tensors: Tensors, changes: list[Pieces]) -> Iterator[torch.Tensor]:
    """The base plus the changes that have the elected sign."""
    import torch

    weights = tensors.weighted()
    scale = tensors.shared.get("lambda", settings.scale)
    for base, *parts in zip(tensors.need_base()(), *(change() for change in changes)):
        weighted = torch.stack([part * weight for part, weight in zip(parts, weights)])
        sign = weighted.sum(0).sign()
        agree = (weighted.sign() == sign) & (weighted != 0)
        total = (weighted * agree).sum(0)
        if settings.normalize:
            share = torch.tensor(weights, dtype=total.dtype)[:, None] * agree
            count = share.sum(0)
            total = torch.where(count.abs() > 1e-8, total / count, torch.zeros_like(total))
        yield base + total * scale


def threshold(change: Pieces, density: float) -> float:
    """Size of the smallest of the `density` largest changes; the only place that holds a whole tensor.

    Raises:
        UserError: A density that is no share.
    """
    import numpy as np

    if not 0 < density <= 1:
        raise UserError(f"a density is a share above 0 and up to 1, got {density}", where="merge")
    sizes = np.concatenate([piece.abs().numpy() for piece in change()])
    count = max(1, round(density * len(sizes))) if len(sizes) else 0
    if count == len(sizes):
        return 0.0
    sizes.partition(len(sizes) - count)
    return float(sizes[len(sizes) - count])


def _kept(change: Pieces, least: float) -> Pieces:
    return lambda: (piece * (piece.abs() >= least) for piece in change())
