"""Sparse and low-rank weights: a low-rank update and a few free entries at chosen places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.shape.wrap import WrapContext, wraps
from warmstart.shape.wrap._godec import godec, largest
from warmstart.shape.wrap._low_rank import best_factors, zero_factors
from warmstart.shape.wrap.low_rank import LowRankSettings, check_rank

if TYPE_CHECKING:
    import torch

    from warmstart.checkpoint.forms.sparse_low_rank import SparseLowRank


class SparseLowRankSettings(LowRankSettings):
    """As for low-rank weights, and where the free entries lie."""

    entries: int = Field(default=64, ge=1)
    """N: free entries of each matrix."""
    density: float | None = Field(default=None, gt=0, le=1)
    """Share of a matrix's entries that are free, in place of a number."""
    support: Literal["decomposed", "magnitude", "random"] = "decomposed"
    """Where they lie: at the largest entries of the sparse part when the matrix is taken apart into a
    low-rank and a sparse one, at the largest entries of the matrix, or anywhere."""
    support_rank: int | None = Field(default=None, ge=1)
    """Rank of the low-rank part in that decomposition; `rank` where not given."""


@wraps.register(
    "sparse-low-rank",
    settings=SparseLowRankSettings,
    title="DSEE: Dually Sparsity-embedded Efficient Tuning of Pre-trained Language Models",
    arxiv="2111.00160",
)
def sparse_low_rank(settings: SparseLowRankSettings, context: WrapContext) -> dict[str, SparseLowRank]:
    """`W = W_0 + (alpha / r) (U V + S)`: U V has rank r and S a few entries at places that W_0 itself shows.

    The places are those of the N largest entries of the sparse part of W_0 (see
    [`godec`][warmstart.shape.wrap._godec.godec]); values and U begin at zero, so the function is what it was,
    and `r (m + n) + N` numbers learn. What else of the model learns is the setting `trainable` of training:
    `['\\.(a|b|values)$']` is these alone. Pruned entries of W_0 (S_1 in the paper) are its zeros, which stay.

    `frozen: false` goes without W_0, as SLTrain (arXiv 2406.02214) does: U V and S begin as the low-rank and
    the sparse part of the matrix; with `support: random` and a `density` it is that method's form.

    Differences from the released code (VITA-Group/DSEE): see `godec`. There only queries and values are
    wrapped, which is `maps: [self.query, self.value]` here.

    Raises:
        UserError: A rank above the smaller side of a matrix, or more entries than it has.
    """
    from warmstart.checkpoint.forms.sparse_low_rank import SparseLowRank

    made = {}
    for place in context.places:
        dense = place.matrix()
        check_rank(max(settings.rank, settings.support_rank or 1), place)
        entries = settings.entries if settings.density is None else round(settings.density * dense.numel())
        if not 1 <= entries <= dense.numel():
            raise UserError(
                f"{entries} free entries do not fit a matrix with {dense.numel()}",
                where=place.name,
                fix="change entries or density",
            )
        low, positions = _support(settings, dense, entries, context.generator)
        kept = None
        values = dense.new_zeros(entries)
        if settings.frozen:
            b, a = zero_factors(dense, settings.rank, context.generator, std=settings.init_std)
            kept = dense.to(place.dtype)
        else:
            scale = settings.alpha / settings.rank
            values = (dense - low).flatten()[positions] / scale
            rest = (dense / scale).flatten().index_add(0, positions, -values).view_as(dense)
            b, a = best_factors(rest, settings.rank, context.generator, std=settings.init_std)
        b, a, values = (part.to(place.dtype) for part in (b, a, values))
        made[place.name] = SparseLowRank(place.module, kept, b, a, settings.alpha, positions, values)
    return made


def _support(
    settings: SparseLowRankSettings, dense: torch.Tensor, entries: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The low-rank part that the entries are measured against, and their places."""
    import torch

    rank = settings.support_rank or settings.rank
    if settings.support == "decomposed":
        return godec(dense, rank, entries, generator)
    if settings.support == "magnitude":
        positions = largest(dense, entries)
    else:
        positions = torch.randperm(dense.numel(), generator=generator)[:entries].sort().values
    u, s, vt = torch.linalg.svd(dense, full_matrices=False)
    return u[:, :rank] * s[:rank] @ vt[:rank], positions
