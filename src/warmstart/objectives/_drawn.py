"""What objectives share that draw a part of the model for each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.objectives._base import Objective

if TYPE_CHECKING:
    from torch import nn


class Drawn(Objective):
    """Knows the place of a step in the budget, and draws by it and by the setting `seed`.

    So a run that is continued draws what it would have drawn, and all processes and passes of a step draw the
    same.
    """

    settings: Any
    progress: float = 0.0
    """Share of the budget at the step at hand."""

    def at(self, progress: float) -> None:
        """Remember the place of the step, which decides what it draws."""
        self.progress = progress

    def draws(self) -> np.random.Generator:
        """The generator of the step at hand, from its beginning."""
        return np.random.default_rng([self.settings.seed, round(self.progress * 2**40)])


def refuse_recomputed(model: nn.Module, why: str, *, where: str | None = None) -> None:
    """Refuse a model that computes its blocks again in the backward pass.

    Raises:
        UserError: With what does not work then.
    """
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise UserError(why, where=where, fix="set gradient_checkpointing: false")
