"""APOLLO-Mini: APOLLO with rank 1 and one factor per matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from warmstart.training.optimizer import WHOLE, OptimizerContext, optimizers
from warmstart.training.optimizers.apollo import ApolloSettings, apollo

if TYPE_CHECKING:
    from torch.optim import Optimizer


class ApolloMiniSettings(ApolloSettings):
    """Options of `apollo-mini`: those of `apollo` with other defaults."""

    rank: int | None = Field(default=1, ge=1)
    """Dimensions that the shorter side of a matrix is projected to; null takes a quarter of it."""
    scale: float = Field(default=128.0, gt=0)
    """Updates of matrices are multiplied by its root, which makes up for what a projection to one dimension
    loses in length."""
    scale_type: Literal["channel", "tensor"] = "tensor"
    """One factor per column (row for m >= n), or one for the whole matrix."""


@optimizers.register(
    "apollo-mini",
    settings=ApolloMiniSettings,
    title="APOLLO: SGD-like Memory, AdamW-level Performance",
    arxiv="2412.05270",
    tags=(WHOLE, "lean"),
)
def apollo_mini(context: OptimizerContext, settings: ApolloMiniSettings) -> Optimizer:
    """`apollo` with r = 1, one factor `|Adam(R)| / |R|` per matrix, and scale 128.

    Keeps 2 n + 1 values for a weight (m, n) with m <= n: the memory of plain SGD.
    """
    return apollo(context, settings)
