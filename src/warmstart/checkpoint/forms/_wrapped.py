"""Wrapped linear maps: `y = W x + b` whose matrix W is made of other parameters than its entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LINEAR = (nn.Linear, Conv1D)
"""Modules that can be wrapped. A Conv1D (GPT-2) stores its matrix as (inputs, outputs)."""


def sizes_of(module: nn.Module) -> tuple[int, int]:
    """Outputs and inputs of an ordinary linear map."""
    weight: Any = module.weight
    rows, columns = weight.shape
    return (columns, rows) if isinstance(module, Conv1D) else (rows, columns)


class Wrapped(nn.Module):
    """A linear map with a matrix of its own making; stands wherever an `nn.Linear` or a `Conv1D` stood.

    Args:
        old: The map that it replaces, for its sizes, its bias (the same parameter) and its layout.
    """

    keys: ClassVar[tuple[str, ...]] = ()
    """Attributes that the note holds; `empty` gets them back."""

    bias: nn.Parameter | None

    def __init__(self, old: nn.Module) -> None:
        super().__init__()
        self.transposed = isinstance(old, Conv1D)
        self.out_features, self.in_features = sizes_of(old)
        self.nf = self.out_features  # what a Conv1D calls it
        self.register_parameter("bias", old.bias)  # type: ignore[arg-type]
        self.train(old.training)

    @classmethod
    def empty(cls, old: nn.Module, sizes: Mapping[str, Any]) -> Self:
        """A map of these sizes in place of `old`, whose parameters are open."""
        raise NotImplementedError

    def matrix(self) -> torch.Tensor:
        """W `(outputs, inputs)`, multiplied out."""
        raise NotImplementedError

    @property
    def weight(self) -> torch.Tensor:
        """The matrix as the replaced module stored it."""
        return self.matrix().T if self.transposed else self.matrix()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`W x + b` of states `(…, inputs)`."""
        return nn.functional.linear(x, self.matrix(), self.bias)

    def dense(self) -> nn.Module:
        """The ordinary map with the same matrix and the same bias."""
        with torch.device("meta"):
            fresh: nn.Module
            if self.transposed:
                fresh = Conv1D(self.out_features, self.in_features)
            else:
                fresh = nn.Linear(self.in_features, self.out_features, bias=False)
        fresh.weight = nn.Parameter(self.weight.detach().clone(memory_format=torch.contiguous_format))
        fresh.register_parameter("bias", self.bias)
        return fresh.train(self.training)


def places(model: nn.Module) -> Iterator[tuple[str, Wrapped]]:
    """Name and module of every wrapped map."""
    for name, module in model.named_modules():
        if isinstance(module, Wrapped):
            yield name, module


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Set the module of a dotted name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


class WrappedForm:
    """Models in which linear maps are wrapped, all by one class.

    The note holds `modules`, the name of each to its sizes, and `shared`, lists of names of parameters that
    are one; such a parameter is stored once, under the first of its names.

    Args:
        kind: The class of the wrapped maps.
    """

    def __init__(self, kind: type[Wrapped]) -> None:
        self.kind = kind

    def describe(self, model: PreTrainedModel) -> dict[str, Any] | None:
        """Sizes of all wrapped maps, and what they share."""
        found = {name: module for name, module in places(model) if type(module) is self.kind}
        if not found:
            return None
        names: dict[int, list[str]] = {}
        for name, module in found.items():
            for own, parameter in module.named_parameters():
                names.setdefault(id(parameter), []).append(f"{name}.{own}")
        return {
            "modules": {name: {key: getattr(m, key) for key in m.keys} for name, m in found.items()},
            "shared": [group for group in names.values() if len(group) > 1],
        }

    def prepare(self, model: PreTrainedModel, note: Mapping[str, Any]) -> None:
        """Replace the maps by wrapped ones whose values are open."""
        for name, sizes in note["modules"].items():
            put(model, name, self.kind.empty(model.get_submodule(name), sizes))
        for group in note["shared"]:
            share(model, group)

    def plain_shapes(self, model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
        """The state's shapes with dense matrices."""
        wrapped = dict(places(model))
        shapes = {}
        for name, tensor in model.state_dict().items():
            inside = any(name.startswith(f"{place}.") for place in _parents(name, wrapped))
            if not inside or (name.rpartition(".")[0] in wrapped and name.endswith(".bias")):
                shapes[name] = tuple(tensor.shape)
        for name, module in wrapped.items():
            size = (module.out_features, module.in_features)
            shapes[f"{name}.weight"] = size[::-1] if module.transposed else size
        return shapes


def share(model: nn.Module, names: Sequence[str]) -> None:
    """Make parameters of these names the first one of them."""
    first = model.get_parameter(names[0])
    for name in names[1:]:
        place, _, own = name.rpartition(".")
        model.get_submodule(place)._parameters[own] = first


def _parents(name: str, wrapped: Mapping[str, Wrapped]) -> list[str]:
    parts = name.split(".")
    return [place for n in range(1, len(parts)) if (place := ".".join(parts[:n])) in wrapped]
