"""Fira: GaLore that also uses what the projection leaves out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from warmstart.training.optimizer import WHOLE, OptimizerContext, optimizers
from warmstart.training.optimizers._settings import LimitedSettings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from warmstart.training.optimizers._lean import MatrixUpdate


class FiraSettings(LimitedSettings):
    """Options of `fira`."""

    scale: float = Field(default=0.25, gt=0)
    """The paper's alpha: factor on the projected part of the update."""
    residual: Literal["exact", "released"] = "exact"
    """What counts as the rest of the gradient: `G - P P^T G` as in the paper (`exact`), or
    `G - alpha P P^T G` as in the released code, which leaves most of the projected part in (`released`)."""


@optimizers.register(
    "fira",
    settings=FiraSettings,
    title="Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank Constraint?",
    arxiv="2410.01623",
    tags=(WHOLE, "lean"),
)
def fira(context: OptimizerContext, settings: FiraSettings) -> Optimizer:
    """`W -= lr * (alpha * P Adam(R) + limit(phi * (G - P R)))` with `R = P^T G`, for weights of layers.

    P is that of `galore`. phi scales each column (row for m >= n) as Adam scales the projected one:
    `phi_j = |Adam(R)_j| / |R_j|`, 0 where R_j is 0. The limiter keeps the second term from growing by more
    than `growth_limit` from one update to the next. Embeddings, heads, norms and vectors have AdamW.

    Keeps m r + 2 n r + 1 values for a weight (m, n) with m <= n.

    Differences from the released code: its residual is `G - alpha * P R`, because it projects back with alpha
    inside (`residual: released` does that); its limiter measures before Adam's bias correction (`limited:
    released`); 1e-8 is not added to |R_j|; and those of `galore`.
    """
    import torch

    from warmstart.training.optimizers._lean import LeanAdamW, scaling

    share = 1.0 if settings.residual == "exact" else settings.scale

    def direction(update: MatrixUpdate) -> Tensor:
        basis = update.singular_basis(settings.rank, settings.update_proj_gap)
        low = basis.T @ update.grad
        adam = update.adam(low)
        rest = torch.addmm(update.grad, basis, low, alpha=-share).mul_(scaling(adam, low))
        return update.limited(rest, settings).addmm_(basis, adam, alpha=settings.scale)

    return LeanAdamW(context, direction)
