"""Ways to merge checkpoints of one shape, one file each.

A way is `merge(settings, tensors) -> pieces`: it reads one tensor of every model in aligned pieces and
yields the merged ones, in the same order; so memory holds pieces, not tensors, unless a way needs a whole
one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from warmstart.foundation.errors import UserError
from warmstart.foundation.registry import Registry

if TYPE_CHECKING:
    import torch

Pieces = Callable[[], Iterator["torch.Tensor"]]
"""The tensor of one model, flattened, in pieces of a wide type; each call begins anew."""


@dataclass(frozen=True)
class Tensors:
    """One tensor of every model that is merged.

    Attributes:
        name: As stored.
        models: Of the models, in the order of the settings.
        base: Of the base model, or None.
        weights: Weight of each model for this tensor, None where none is given.
        densities: Share of its changes that each model keeps, None where none is given.
        shared: Other parameters of the merge for this tensor, by name, such as `t`.
        generator: Of this tensor alone.
    """

    name: str
    models: Sequence[Pieces]
    base: Pieces | None
    weights: Sequence[float | None]
    densities: Sequence[float | None]
    shared: dict[str, float]
    generator: torch.Generator

    def weighted(self, usual: float = 1.0) -> list[float]:
        """The weights, `usual` where none is given."""
        return [usual if weight is None else weight for weight in self.weights]

    def changes(self) -> list[Pieces]:
        """What each model changed in the base: `x_i - x_base`."""
        base = self.need_base()

        def of(model: Pieces) -> Pieces:
            return lambda: (theirs - ours for theirs, ours in zip(model(), base()))

        return [of(model) for model in self.models]

    def need_base(self) -> Pieces:
        """The base's tensor.

        Raises:
            UserError: None is given.
        """
        if self.base is None:
            raise UserError("this way to merge needs a base model", where="merge", fix="set base_model")
        return self.base


Merge = Callable[[Any, Tensors], Iterator["torch.Tensor"]]
merges: Registry[Merge] = Registry("merge", "warmstart.shape.merge")
