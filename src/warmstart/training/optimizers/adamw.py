"""AdamW, by torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warmstart.foundation.settings import Settings
from warmstart.training.optimizer import OptimizerContext, optimizers

if TYPE_CHECKING:
    from torch.optim import Optimizer


@optimizers.register("adamw", title="Decoupled Weight Decay Regularization", arxiv="1711.05101")
def adamw(context: OptimizerContext, settings: Settings) -> Optimizer:
    """AdamW with torch's fused kernel: one pass over each parameter.

    Keeps two moments of each value: 2 m n values for a weight (m, n).
    """
    import torch

    return torch.optim.AdamW(
        context.groups, lr=context.learning_rate, betas=context.betas, eps=context.epsilon, fused=True
    )
