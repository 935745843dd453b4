"""Where axes live: the groups that must follow one index map, and the sites of the vocabulary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from warmstart.anatomy.notation import Role, TensorSpec
from warmstart.anatomy.tables import FamilyTable


@dataclass(frozen=True)
class VocabularySites:
    """Where the vocabulary axis lives. All names are parameter names of the model with its head.

    Attributes:
        input_rows: Input embedding `(V, H)`, canonical name first, then aliases of the same tensor.
        head_rows: Output rows `(V, H)`, or None when they are the input rows (tied).
        head_bias: Bias per output row, `(V,)`, empty when there is none. The first is the one that the model
            adds; when tied, all names are one tensor.
        tied: Whether head and input rows are one tensor.
        embedding_scale: Factor between an input row and the first block's input.
        head_scale: Factor between the last hidden state and the head (T5 v1.0: `H ** -0.5`).
    """

    input_rows: tuple[str, ...]
    head_rows: str | None
    head_bias: tuple[str, ...]
    tied: bool
    embedding_scale: float
    head_scale: float


@dataclass(frozen=True)
class Member:
    """One dimension of one viewed tensor that belongs to an axis group."""

    tensor: str
    dim: int
    role: Role


@dataclass(frozen=True)
class AxisGroup:
    """All places that must follow one index map.

    Attributes:
        name: `H`, `h@encoder` or `F@decoder.3`.
        axes: Axis letters in the group (`T` joins `H` in a tied BERT).
        size: Number of entries.
        scope: `global`, `stack` or `layer`.
        order: `free` if the entries may be permuted together without changing the model, `fixed` if the
            index means something (positions, rotary dimensions).
        members: Every occurrence; a tied tensor is listed once, under the name that owns the storage.
    """

    name: str
    axes: tuple[str, ...]
    size: int
    scope: Literal["global", "stack", "layer"]
    order: Literal["free", "fixed"]
    members: tuple[Member, ...]


def axis_groups(table: FamilyTable, tensors: Mapping[str, TensorSpec]) -> dict[str, AxisGroup]:
    """Axis groups by name, collected over all tensors that own their storage."""
    members: dict[str, list[Member]] = defaultdict(list)
    axes: dict[str, dict[str, int]] = defaultdict(dict)
    for spec in tensors.values():
        if spec.tied_to is None:
            for dim, (factor, role) in enumerate(zip(spec.factors, spec.roles)):
                if factor.axis and factor.group:
                    members[factor.group].append(Member(spec.name, dim, role))
                    axes[factor.group][factor.axis] = factor.size
    found: dict[str, AxisGroup] = {}
    for name, places in members.items():
        owner = table.axes[name.split("@")[0]]
        (size,) = set(axes[name].values())
        found[name] = AxisGroup(name, tuple(axes[name]), size, owner.scope, owner.order, tuple(places))
    return found
