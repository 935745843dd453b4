"""Drop changes at random, rescale the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from warmstart.shape.merge import Pieces, Tensors, merges
from warmstart.shape.merge.ties import TiesSettings, elected

if TYPE_CHECKING:
    import torch


class DareSettings(TiesSettings):
    """How changes are dropped and added."""

    density: float = Field(default=0.5, gt=0, le=1)
    """Share of each model's changes that stays; a model's own goes before it."""
    sign: Literal["all", "elected"] = "all"
    """`all`: changes are added as in task arithmetic. `elected`: only those with the sign that wins, as in
    TIES."""
    rescale: Literal["expectation", "l1", "none"] = "expectation"
    """`expectation`: what stays is divided by the density. `l1`: by the share of the summed sizes that
    stayed, which keeps that sum exactly."""
    normalize: bool = False
    """Divide by the sum of the weights (of those that agree, for elected signs)."""


@merges.register(
    "dare",
    settings=DareSettings,
    title="Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
    arxiv="2311.03099",
)
def dare(settings: DareSettings, tensors: Tensors) -> Iterator[torch.Tensor]:
    """`d_i * m_i / density` with `m_i` drawn from Bernoulli(density), then added to the base.

    Masks are drawn per tensor from the seed, so a merge can be repeated.
    """
    thinned = [
        _thinned(settings, change, settings.density if density is None else density, seed)
        for change, density, seed in zip(tensors.changes(), tensors.densities, _seeds(tensors))
    ]
    if settings.sign == "elected":
        yield from elected(settings, tensors, thinned)
        return
    weights, scale = tensors.weighted(), tensors.shared.get("lambda", settings.scale)
    if settings.normalize and (total := sum(weights)):
        scale /= total
    for base, *parts in zip(tensors.need_base()(), *(change() for change in thinned)):
        for part, weight in zip(parts, weights):
            base = base + part * (scale * weight)
        yield base


def _seeds(tensors: Tensors) -> list[int]:
    import torch

    return torch.randint(0, 2**62, (len(tensors.models),), generator=tensors.generator).tolist()


def _thinned(settings: DareSettings, change: Pieces, density: float, seed: int) -> Pieces:
    import torch

    def masked() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        for piece in change():
            yield piece, torch.rand(piece.shape, generator=generator) < density

    factor = 1.0
    if settings.rescale == "expectation":
        factor = 1 / density
    elif settings.rescale == "l1":
        whole, kept = 0.0, 0.0
        for piece, mask in masked():
            whole += float(piece.abs().double().sum())
            kept += float((piece.abs() * mask).double().sum())
        factor = whole / kept if kept else 1.0
    return lambda: (piece * mask * factor for piece, mask in masked())
