"""Where a learned growth begins: the surgery in two steps, every layer wider and then more layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from warmstart.anatomy import Anatomy, TensorSpec
from warmstart.foundation.errors import UserError
from warmstart.shape.groups import resized_groups
from warmstart.shape.grow import GrowSettings, grow
from warmstart.shape.maps import AxisMap
from warmstart.shape.reshape import Reshape
from warmstart.shape.target import target_anatomy


@dataclass(frozen=True)
class Start:
    """A growth that is not learned, as `deep(wide(old))`.

    Attributes:
        wide: From the old model to wider layers, as many as there were.
        deep: From these to more layers.
    """

    wide: Reshape
    deep: Reshape

    @property
    def old(self) -> Anatomy:
        """The model that exists."""
        return self.wide.old

    @property
    def new(self) -> Anatomy:
        """The model to make."""
        return self.deep.new

    def layers(self, spec: TensorSpec) -> list[str]:
        """Names, one per old layer, of the tensors of which a new one is mixed; none where it is not."""
        if spec.stack not in self.deep.layers or "{l}" not in spec.template:
            return []
        names = [
            spec.template.replace("{l}", str(layer)) for layer in range(self.old.layers[str(spec.stack)])
        ]
        return names if all(name in self.old.tensors for name in names) else []

    def mixing(self, template: str, stack: str) -> np.ndarray:
        """`D` `(new layers, old layers)` of a kind of tensor: what the layers are copies of."""
        chosen, count = self.deep.layers[stack], self.old.layers[stack]
        found = np.zeros((len(chosen), count))
        for layer, sources in enumerate(chosen.sources):
            name = template.replace("{l}", str(layer))
            if layer in chosen.silent and name in self.new.outputs(stack, layer):
                continue
            for origin, weight in sources:
                found[layer, origin] += weight
        return found


def begin(old: Anatomy, settings: GrowSettings) -> Start:
    """The surgery whose maps are where learning starts.

    Raises:
        UserError: What [`grow`][warmstart.shape.grow.grow] raises; a mixture of experts or a model that reads
            no text; rotary heads of another size; units from the layer above (`aki`), which no map of a layer
            to itself can hold.
    """
    if old.table.task is None:
        raise UserError(f"a {old.model_type} reads no text to learn its growth on", fix="use `grow`")
    if any(spec.entry or spec.axis_dims("X") for spec in old.tensors.values()):
        raise UserError(
            "the growth of a mixture of experts cannot be learned",
            where="grow-learned",
            fix="grow the dense model and upcycle it, or use `grow`",
        )
    deeper = [key for key in settings.to if _counts_layers(old, key)]
    wider = [key for key in settings.to if key not in deeper]
    goal = target_anatomy(old, settings.to)
    wide, widens = Reshape(old, old), False
    if wider:
        part = {key: settings.to[key] for key in wider}
        widens = any(True for _ in resized_groups(old, target_anatomy(old, part), {}))
        wide = grow(old, settings.model_copy(update={"to": part})) if widens else wide
    deep = Reshape(wide.new, wide.new)
    if goal.layers != old.layers:
        part = {key: settings.to[key] for key in deeper}
        deep = grow(wide.new, settings.model_copy(update={"to": part}))
    elif not widens:
        grow(old, settings)  # says why nothing grows
    for name, axis in wide.maps.items():
        _check(wide.new, name, axis)
    return Start(wide, deep)


def _counts_layers(old: Anatomy, key: str) -> bool:
    return key in old.table.config and any(name.startswith("layers_") for name in old.config_axes(key))


def _check(new: Anatomy, name: str, axis: AxisMap) -> None:
    if name.partition("@")[0] in ("e", "d") and new.rotary:
        raise UserError(
            "the size of a head with rotary positions cannot be learned: every entry has its own frequency",
            where="grow-learned",
            fix="add heads instead",
        )
    if axis.above is not None:
        raise UserError(
            "`aki` takes new units from the layer above, and here each layer is widened by itself",
            where="grow-learned",
            fix="take width: exact or fpi",
        )


def dense(axis: AxisMap, size: int, role: str) -> np.ndarray:
    """The matrix `(new, old)` of a map, for one of the ways in which an axis occurs.

    Args:
        axis: The map.
        size: Old entries.
        role: `o`, produced; `i`, consumed; `gain` or `bias` of a norm.
    """
    found = np.zeros((len(axis), size))
    known = np.flatnonzero(~axis.new)
    found[known, axis.index[known]] = axis.share[known] if role == "i" else 1.0
    if axis.new.any() and (role == "gain" or (role == "o" and axis.fill == "mean")):
        found[axis.new] = 1 / size
    return found
