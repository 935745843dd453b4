"""What a model's routers are asked beside the likelihood: trained with it, but no part of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from torch import Tensor, nn


class Penalty(ABC):
    """A loss of the model itself, taken from what its routers do while the objective runs it.

    The training loss of a forward pass is `nll + weight * targets * penalty`: divided by the targets of a
    step, the mean likelihood plus the mean penalty of the passes, each with the weight of its targets. The
    penalty is reported under its own `name` and is in no likelihood.
    """

    name: ClassVar[str]
    """Under which events and trackers have it."""
    weight: float
    """Factor in the training loss."""
    watched: bool = False
    """Whether what routers do counts: only inside `watching`."""

    def at(self, progress: float) -> None:  # noqa: B027
        """Called before each step with the share of the budget at the middle of that step."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """What the model computes inside with gradients is what `value` is taken from."""
        self.begin()
        self.watched = True
        try:
            yield
        finally:
            self.watched = False

    @abstractmethod
    def begin(self) -> None:
        """Forget what was seen."""

    @abstractmethod
    def value(self, reading: Tensor | None) -> Tensor | None:
        """The penalty of what was seen, differentiable; None if nothing was.

        Args:
            reading: Positions that hold text, `(B, L)`; all where None.
        """

    def close(self) -> None:  # noqa: B027
        """Leave the model as it was."""


def penalty_of(model: nn.Module, weight: float | None = None) -> Penalty | None:
    """The penalty that a model has; None for a model without routers, and where its weight is 0.

    Args:
        model: A transformers model.
        weight: Factor in the training loss; what the model's configuration says where None.
    """
    from warmstart.objectives._balance import RouterBalance
    from warmstart.objectives._skip_rate import SkipRate

    return SkipRate.of(model, weight) or RouterBalance.of(model, weight)
