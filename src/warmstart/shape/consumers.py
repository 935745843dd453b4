"""The linear modules that read an axis, and which of its entries stand at which of their inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from warmstart.anatomy import Anatomy, AxisGroup, Dim, TensorSpec
from warmstart.shape.maps import AxisMap

if TYPE_CHECKING:
    from torch import Tensor, nn


class Consumer(NamedTuple):
    """A linear module, by its weight."""

    module: str
    """Its name."""
    spec: TensorSpec
    """Its weight."""

    @property
    def reads(self) -> Dim:
        """The dimension of its inputs."""
        return next(dim for dim in self.spec.dims if dim.role == "i")

    @property
    def writes(self) -> Dim:
        """The dimension of its outputs."""
        return next(dim for dim in self.spec.dims if dim.role == "o")

    @property
    def transposed(self) -> bool:
        """Whether the weight is stored as inputs by outputs (GPT-2)."""
        return self.spec.dims[0].role == "i"

    def over(self, values: Tensor, group: str) -> Tensor:
        """Inputs `(…, n)` summed over all but the entries of a group: `(size,)`, and over all positions."""
        factors = self.reads.factors
        shaped = values.reshape(-1, *(factor.size for factor in factors))
        place = 1 + next(i for i, factor in enumerate(factors) if factor.group == group)
        return shaped.sum([d for d in range(shaped.ndim) if d != place])


def consumers_of(anatomy: Anatomy, model: nn.Module, group: AxisGroup) -> Iterator[Consumer]:
    """The linear modules of a model that read a group; experts that are stacked in one tensor are none."""
    for member in group.members:
        consumer = as_consumer(anatomy.tensors[member.tensor], model) if member.role == "i" else None
        if consumer is not None:
            yield consumer


def as_consumer(spec: TensorSpec, model: nn.Module) -> Consumer | None:
    """The linear module whose weight this is; None where the model has none."""
    name = spec.name.removesuffix(".weight")
    if name == spec.name or [dim.role for dim in spec.dims] not in (["o", "i"], ["i", "o"]):
        return None
    try:
        model.get_submodule(name)
    except AttributeError:
        return None
    return Consumer(name, spec)


def places(now: Dim, before: Dim, maps: Mapping[str, AxisMap]) -> np.ndarray:
    """Old places along a stored dimension of what the new one has, `(m,)`.

    Args:
        now: The dimension in the new model.
        before: The same in the old one.
        maps: Name of a group of the new model to its map.
    """
    found = np.arange(before.size).reshape([factor.size for factor in before.factors])
    for dim, factor in enumerate(now.factors):
        if (axis := maps.get(factor.group or "")) is not None:
            found = found.take(axis.index, axis=dim)
    return found.reshape(-1)
