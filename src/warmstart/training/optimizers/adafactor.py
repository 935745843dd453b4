"""Adafactor, by torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.training.optimizer import WHOLE, OptimizerContext, optimizers

if TYPE_CHECKING:
    from torch.optim import Optimizer


class AdafactorSettings(Settings):
    """Options of `adafactor`."""

    beta2_decay: float = Field(default=-0.8, lt=0)
    """The second moment after t updates forgets `t ** beta2_decay` of itself."""
    clip_threshold: float = Field(default=1.0, ge=1)
    """An update whose root mean square is larger is shortened to it."""
    epsilon: float = Field(default=1e-3, ge=0)
    """Least root mean square that a parameter is taken to have, so that one of zeros can learn."""


@optimizers.register(
    "adafactor",
    settings=AdafactorSettings,
    title="Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
    arxiv="1804.04235",
    tags=(WHOLE, "lean"),
)
def adafactor(context: OptimizerContext, settings: AdafactorSettings) -> Optimizer:
    """Torch's Adafactor for all parameters: no first moment, and a second one from sums of rows and columns.

    `learning_rate` is relative: a step is `min(lr, 1 / sqrt(t))` times the root mean square of the parameter;
    try 0.01. `adam_beta1`, `adam_beta2` and `adam_epsilon` have no effect.

    Keeps m + n values for a weight (m, n), and n for a vector (n,).
    """
    import torch

    return torch.optim.Adafactor(
        context.groups,
        lr=context.learning_rate,
        beta2_decay=settings.beta2_decay,
        eps=(None, settings.epsilon),
        d=settings.clip_threshold,
    )
