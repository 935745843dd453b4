"""GaLore: Adam in the top singular directions of the gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from warmstart.training.optimizer import WHOLE, OptimizerContext, optimizers
from warmstart.training.optimizers._settings import ProjectionSettings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer

    from warmstart.training.optimizers._lean import MatrixUpdate


class GaLoreSettings(ProjectionSettings):
    """Options of `galore`."""

    scale: float = Field(default=0.25, gt=0)
    """The paper's alpha: factor on the updates of matrices."""


@optimizers.register(
    "galore",
    settings=GaLoreSettings,
    title="GaLore: Memory-Efficient LLM Training by Gradient Low-Rank Projection",
    arxiv="2403.03507",
    tags=(WHOLE, "lean"),
)
def galore(context: OptimizerContext, settings: GaLoreSettings) -> Optimizer:
    """`W -= lr * alpha * P Adam(P^T G)` with P the top r left singular vectors of G, for weights of layers.

    For weights (m, n) with m >= n the right ones: `W -= lr * alpha * Adam(G Q) Q^T`. P is computed anew from
    the gradient of every `update_proj_gap`-th update, by a full SVD in float32, which costs time and memory
    for a moment; moments are not rotated when it changes, so for a while they belong to other directions.
    With r = m and alpha = 1 it is, until P changes, Adam on `P^T W` (not Adam on W). The paper's learning
    rate is 0.01, with alpha 0.25. Embeddings, heads, norms and vectors have AdamW, at the same rate without
    alpha.

    Keeps m r + 2 n r values for a weight (m, n) with m <= n.

    Differences from the released code: weights decay before the update, as in torch's AdamW, not after it;
    epsilon is added to the corrected root; singular vectors have a fixed sign. Layer-wise updates in the
    backward pass, which also save the gradient, and 8-bit moments are not here. Under FSDP2 it is refused,
    as a shard has other singular vectors than the matrix.
    """
    from warmstart.training.optimizers._lean import LeanAdamW

    def direction(update: MatrixUpdate) -> Tensor:
        basis = update.singular_basis(settings.rank, settings.update_proj_gap)
        return basis @ update.adam(basis.T @ update.grad).mul_(settings.scale)

    return LeanAdamW(context, direction)
