"""Low-rank weights: beside a frozen matrix, or in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.wrap import Place, WrapContext, wraps
from warmstart.shape.wrap._low_rank import best_factors, zero_factors

if TYPE_CHECKING:
    from warmstart.checkpoint.forms.low_rank import LowRank


class LowRankSettings(Settings):
    """How thin the factors are, and what becomes of the matrix."""

    rank: int = Field(default=16, ge=1)
    """r: width of the factors."""
    alpha: float = Field(default=32.0, gt=0)
    """The product of the factors counts `alpha / rank` times."""
    frozen: bool = True
    """Keep the matrix, frozen, and let the factors add to it, at first nothing. Otherwise they stand in its
    place, at first as its best approximation."""
    init_std: float = Field(default=0.02, gt=0)
    """Standard deviation of what is drawn for the factor A."""


@wraps.register(
    "low-rank",
    settings=LowRankSettings,
    title="LoRA: Low-Rank Adaptation of Large Language Models",
    arxiv="2106.09685",
)
def low_rank(settings: LowRankSettings, context: WrapContext) -> dict[str, LowRank]:
    """`W = W_0 + (alpha / r) B A` with a frozen W_0, or `W = (alpha / r) B A` (`frozen: false`).

    Beside a frozen matrix B begins at zero, so the function is what it was, and `r (m + n)` numbers learn in
    place of `m n`. What else of the model learns is the setting `trainable` of training: `['\\.(a|b)$']` is
    the factors alone. In the matrix's place the factors begin as its truncated singular value decomposition,
    split evenly; the optimizer `restarts` (arXiv 2505.22922) splits them anew from time to time. Scaling the
    product by alpha / r is part of that split: `(alpha / r) B A` is the truncated matrix.

    Raises:
        UserError: A rank above the smaller side of a matrix.
    """
    from warmstart.checkpoint.forms.low_rank import LowRank

    made = {}
    for place in context.places:
        dense = place.matrix()
        check_rank(settings.rank, place)
        kept = None
        if settings.frozen:
            b, a = zero_factors(dense, settings.rank, context.generator, std=settings.init_std)
            kept = dense.to(place.dtype)
        else:
            dense /= settings.alpha / settings.rank
            b, a = best_factors(dense, settings.rank, context.generator, std=settings.init_std)
        made[place.name] = LowRank(place.module, kept, b.to(place.dtype), a.to(place.dtype), settings.alpha)
    return made


def check_rank(rank: int, place: Place) -> None:
    """Refuse factors that are wider than the matrix."""
    from warmstart.checkpoint.forms._wrapped import sizes_of

    smaller = min(sizes_of(place.module))
    if rank > smaller:
        raise UserError(
            f"factors of rank {rank} are wider than the matrix, whose smaller side is {smaller}",
            where=place.name,
            fix=f"lower rank to {smaller} or less",
        )
