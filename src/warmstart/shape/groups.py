"""Which axis groups differ between two models, and where each comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from warmstart.anatomy import Anatomy, AxisGroup
from warmstart.foundation.errors import UserError
from warmstart.shape.maps import LayerMap


class Resized(NamedTuple):
    """An axis group of the new model that has another size than the one that it comes from."""

    group: AxisGroup
    """The group in the new model."""
    size: int
    """Its old size."""
    stack: str | None
    """Stack that it belongs to; None for a group of the whole model."""
    layer: int | None
    """New layer that it belongs to; None for a group of a stack or of the whole model."""
    origin: str
    """Name of the group in the old model."""

    @property
    def letter(self) -> str:
        """Axis letter that names the group."""
        return self.group.name.partition("@")[0]

    @property
    def roles(self) -> set[str]:
        """Roles in which the axis occurs."""
        return {member.role for member in self.group.members}


def resized_groups(old: Anatomy, new: Anatomy, layers: Mapping[str, LayerMap]) -> Iterator[Resized]:
    """Every group of `new` whose size differs from where it comes from in `old`."""
    for name, group in new.groups.items():
        _, _, place = name.partition("@")
        stack, _, layer = place.partition(".")
        number = layer.partition(".")[0]
        origin = name
        if number and stack in layers:
            origin = name.replace(f"@{stack}.{number}", f"@{stack}.{layers[stack].origin(int(number))}", 1)
        size = old.groups[origin].size
        if size != group.size:
            yield Resized(group, size, stack or None, int(number) if number else None, origin)


def check_blocks(old: Anatomy, new: Anatomy, layers: Mapping[str, LayerMap]) -> None:
    """Refuse to move a block to a place where the class has one of another kind.

    Raises:
        UserError: Such a block, as where every second one has experts.
    """
    for stack, chosen in layers.items():
        for layer in range(len(chosen)):
            here = {spec.template for spec in new.block(stack, layer)}
            there = {spec.template for spec in old.block(stack, chosen.origin(layer))}
            if here != there:
                raise UserError(
                    f"layer {chosen.origin(layer)} would become layer {layer}, which is of another kind",
                    where="shape",
                    fix="choose layers of the same kind with {name: chosen, layers: […]}",
                )
