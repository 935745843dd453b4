"""The one operator of all surgeries on a shape: every weight mapped along each of its axes and its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from warmstart.anatomy import Anatomy, TensorSpec
from warmstart.shape.along import consumed, elementwise, produced
from warmstart.shape.draws import generator_of
from warmstart.shape.maps import AxisMap, LayerMap, keep

if TYPE_CHECKING:
    import torch

Read = Callable[[str], "torch.Tensor"]
"""Canonical name of an old tensor to the tensor."""


@dataclass(frozen=True)
class Reshape:
    """A model of one size made from one of another: `W'_l = f sum_j D[l, j] (O W_j I^T)`.

    Produced dimensions (role `o`, and table rows, `k`) follow O, consumed ones (`i`) follow I, gains of norms
    copy; maps of one axis group are applied wherever the group occurs, so the residual stream stays one.

    Attributes:
        old: Anatomy of the model that exists.
        new: Anatomy of the model to make.
        maps: Name of a group of `new` to its map; groups that are not named keep their entries.
        layers: Stack to its layers; stacks that are not named keep theirs.
        factors: Canonical name of a tensor of `new` to factors: on all of it (None), or on one place of a
            fused q, k, v dimension.
        split: Norms whose gains and biases are divided among copies as consumed weights are: those before a
            tied head, whose rows are copied.
        made: Tensors of `new` that were computed otherwise, by canonical name.
        seed: Seed of what is drawn at random; each tensor has a stream of its own.
        inexact: Why the new model does not compute what the old one computed; empty where it does.
    """

    old: Anatomy
    new: Anatomy
    maps: Mapping[str, AxisMap] = field(default_factory=dict)
    layers: Mapping[str, LayerMap] = field(default_factory=dict)
    factors: Mapping[str, Mapping[int | None, float]] = field(default_factory=dict)
    split: frozenset[str] = frozenset()
    made: Mapping[str, torch.Tensor] = field(default_factory=dict)
    seed: int = 0
    inexact: tuple[str, ...] = ()

    def origins(self, spec: TensorSpec) -> list[tuple[TensorSpec, float]]:
        """Old tensors that a new one is made of, and their weights; none for a silent output projection."""
        if spec.layer is None or spec.stack is None or spec.stack not in self.layers:
            return [(self.old.tensors[spec.name], 1.0)]
        layers = self.layers[spec.stack]
        if spec.layer in layers.silent and spec.name in self.new.outputs(spec.stack, spec.layer):
            return []
        return [(self._at(spec, layer), weight) for layer, weight in layers.sources[spec.layer]]

    def origin(self, spec: TensorSpec) -> TensorSpec:
        """The old tensor at the place that a new one mainly comes from, also for a silent projection."""
        if spec.layer is None or spec.stack is None or spec.stack not in self.layers:
            return self.old.tensors[spec.name]
        return self._at(spec, self.layers[spec.stack].origin(spec.layer))

    def tensor(self, name: str, read: Read) -> torch.Tensor:
        """A tensor of the new model, of the type of the old one.

        Args:
            name: Its canonical name.
            read: Gives old tensors by canonical name; a tensor that stays as it is comes back as it was read.
        """
        import torch

        if name in self.made:
            return self.made[name]
        spec = self.new.tensors[name]
        origins = self.origins(spec)
        factors = self.factors.get(name, {})
        if not origins:
            return torch.zeros(spec.shape, dtype=read(self.origin(spec).name).dtype)
        if (
            len(origins) == 1
            and origins[0][1] == 1.0
            and not factors
            and self._untouched(spec, origins[0][0])
        ):
            return read(origins[0][0].name)
        parts = [(self._mapped(spec, old, read), weight) for old, weight in origins]
        kind = parts[0][0].dtype
        wide = torch.promote_types(kind, torch.float32)
        total = parts[0][0]
        if len(parts) > 1 or parts[0][1] != 1:
            total = torch.stack([part.to(wide) * weight for part, weight in parts]).sum(0)
        for place, factor in factors.items():
            total = _times(spec, total.to(wide), place, factor)
        return total.to(kind).contiguous()

    def state(self, state: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and tensor of everything in the new model, from the old model's state in memory.

        Units that the old state lacks, such as a pooler, are left out.
        """
        by_name = {spec.tied_to or spec.name: state[name] for name, spec in self.old.match(state).items()}
        for name, spec in self.new.tensors.items():
            if spec.tied_to is None and self.origin(spec).name in by_name:
                yield name, self.tensor(name, by_name.__getitem__)

    def _at(self, spec: TensorSpec, layer: int) -> TensorSpec:
        """The old tensor with the same place in another layer."""
        name = spec.template.replace("{l}", str(layer))
        return self.old.tensors[name.replace("{x}", str(spec.entry.index)) if spec.entry else name]

    def map_of(self, group: str | None, size: int) -> AxisMap:
        """The map of a group of the new model, whose old size is `size`."""
        return self.maps.get(group or "") or keep(size)

    def _untouched(self, spec: TensorSpec, old: TensorSpec) -> bool:
        return all(
            self.map_of(now.group, before.size).is_identity(before.size)
            for now, before in zip(spec.factors, old.factors)
        )

    def _mapped(self, spec: TensorSpec, old: TensorSpec, read: Read) -> torch.Tensor:
        """One old tensor along all of its axes; entries that come from the layer above are taken there."""
        import torch

        mapped = self._along_axes(spec, old, read(old.name))
        late = [self._late(now.group, role) for now, role in zip(spec.factors, spec.roles)]
        if old.layer is None or not any(mask is not None for mask in late):
            return spec.unview(mapped)
        if old.layer + 1 >= self.old.layers[str(old.stack)]:
            return spec.unview(mapped)
        upper = self._at(old, old.layer + 1)
        other = self._along_axes(spec, upper, read(upper.name))
        for dim, mask in enumerate(late):
            if mask is not None:
                shape = [-1 if d == dim else 1 for d in range(mapped.ndim)]
                mapped = torch.where(torch.from_numpy(mask).reshape(shape), other, mapped)
        return spec.unview(mapped)

    def _late(self, group: str | None, role: str) -> np.ndarray | None:
        axis = self.maps.get(group or "")
        return axis.above if axis is not None and role == "o" else None

    def _along_axes(self, spec: TensorSpec, old: TensorSpec, tensor: torch.Tensor) -> torch.Tensor:
        view = old.view(tensor)
        spread, rng = None, generator_of(self.seed, spec.name)
        for dim, (now, before, role) in enumerate(zip(spec.factors, old.factors, spec.roles)):
            axis = self.map_of(now.group, before.size)
            if axis.is_identity(before.size):
                continue
            if role == "i":
                if axis.noise and axis.new.any() and spread is None:
                    spread = float(tensor.double().std())
                view = consumed(view, dim, axis, spread or 0.0, rng)
            elif role == "=" and spec.name in self.split:
                view = consumed(view, dim, axis, 0.0, rng)
            elif role == "=":
                view = elementwise(view, dim, axis, bias=spec.name.endswith(".bias"))
            else:
                view = produced(view, dim, axis)
        return view


def _times(spec: TensorSpec, tensor: torch.Tensor, place: int | None, factor: float) -> torch.Tensor:
    """The tensor times a factor, or only what stands at one place of its constant dimension."""
    if place is None:
        return tensor * factor
    dim = next(i for i, now in enumerate(spec.factors) if now.axis is None)
    view = spec.view(tensor).clone()
    view.select(dim, place).mul_(factor)
    return spec.unview(view)
