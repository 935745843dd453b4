"""APOLLO: the raw gradient, scaled per channel as Adam would scale a random projection of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from warmstart.training.optimizer import WHOLE, OptimizerContext, optimizers
from warmstart.training.optimizers._settings import LimitedSettings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from warmstart.training.optimizers._lean import MatrixUpdate


class ApolloSettings(LimitedSettings):
    """Options of `apollo`."""

    scale: float = Field(default=1.0, gt=0)
    """Updates of matrices are multiplied by its root."""
    scale_type: Literal["channel", "tensor"] = "channel"
    """One factor per column (row for m >= n), or one for the whole matrix."""


@optimizers.register(
    "apollo",
    settings=ApolloSettings,
    title="APOLLO: SGD-like Memory, AdamW-level Performance",
    arxiv="2412.05270",
    tags=(WHOLE, "lean"),
)
def apollo(context: OptimizerContext, settings: ApolloSettings) -> Optimizer:
    """`W -= lr * sqrt(scale) * limit(G * phi)` with `phi_j = |Adam(R)_j| / |R_j|` and `R = P^T G`.

    This is for weights (m, n) of layers with m < n; otherwise for their transposes. P has entries from
    N(0, 1/r), others after every `update_proj_gap` updates: there is no SVD. phi is 0 where R_j is 0. The
    limiter is that of `fira`. Embeddings, heads, norms and vectors have AdamW. The paper's learning rate is
    0.01.

    Keeps 2 n r + 1 values for a weight (m, n) with m <= n: P is drawn again for each update, from the run's
    seed and the weight's name.

    Differences from the released code: that keeps P between updates, so m r more values than the paper says,
    and seeds it by the place of the parameter; its limiter measures before Adam's bias correction (`limited:
    released`); 1e-8 is not added to |R_j|; and those of `galore`.
    """
    from warmstart.training.optimizers._lean import LeanAdamW, scaling

    def direction(update: MatrixUpdate) -> Tensor:
        low = update.random_basis(settings.rank, settings.update_proj_gap).T @ update.grad
        phi = scaling(update.adam(low), low, channels=settings.scale_type == "channel")
        return update.limited(update.grad * (phi * math.sqrt(settings.scale)), settings)

    return LeanAdamW(context, direction)
