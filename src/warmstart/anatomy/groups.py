"""Where axes live: the groups that must follow one index map, and the sites of the vocabulary."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from warmstart.anatomy.notation import Factor, Role, TensorSpec
from warmstart.anatomy.tables import FamilyTable, Scope


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
    """One place of an axis group: a dimension of a viewed tensor, or a whole tensor that is one entry.

    Attributes:
        tensor: Name of the tensor.
        dim: Dimension of the viewed tensor; None where the whole tensor is one entry of the axis.
        role: Role of the dimension; `k` for a whole tensor.
        entry: The entry that a whole tensor is (the expert, in files).
        at: Dimension and index to which the place is confined: `(0, 3)` in a tensor of all experts stacked,
            whose units are permuted in the fourth expert alone.
    """

    tensor: str
    dim: int | None
    role: Role
    entry: int | None = None
    at: tuple[int, int] | None = None


@dataclass(frozen=True)
class AxisGroup:
    """All places that must follow one index map.

    Attributes:
        name: `H`, `h@encoder` or `F@decoder.3`.
        axes: Axis letters in the group (`T` joins `H` in a tied BERT).
        size: Number of entries.
        scope: `global`, `stack`, `layer` or `expert`.
        order: `free` if the entries may be permuted together without changing the model, `fixed` if the
            index means something (positions, rotary dimensions).
        members: Every occurrence; a tied tensor is listed once, under the name that owns the storage.
    """

    name: str
    axes: tuple[str, ...]
    size: int
    scope: Scope
    order: Literal["free", "fixed"]
    members: tuple[Member, ...]

    @property
    def normed(self) -> bool:
        """Whether a norm runs over the entries: they may be permuted, but a copy keeps the model exact only
        where every entry is copied equally often (`H` everywhere; the heads of an OLMoE)."""
        return any(member.role == "=" for member in self.members)


def axis_groups(table: FamilyTable, tensors: Mapping[str, TensorSpec]) -> dict[str, AxisGroup]:
    """Axis groups by name, collected over all tensors that own their storage."""
    members: dict[str, list[Member]] = defaultdict(list)
    axes: dict[str, dict[str, int]] = defaultdict(dict)
    for spec in tensors.values():
        if spec.tied_to is not None:
            continue
        if spec.entry:
            members[spec.entry.group].append(Member(spec.name, None, "k", entry=spec.entry.index))
            axes[spec.entry.group][spec.entry.axis] = spec.entry.size
        for dim, (factor, role) in enumerate(zip(spec.factors, spec.roles)):
            for group, at in _places(spec, factor):
                members[group].append(Member(spec.name, dim, role, at=at))
                axes[group][str(factor.axis)] = factor.size
    found: dict[str, AxisGroup] = {}
    for name, places in members.items():
        owner = table.axes[name.split("@")[0]]
        (size,) = set(axes[name].values())
        found[name] = AxisGroup(name, tuple(axes[name]), size, owner.scope, owner.order, tuple(places))
    return found


def _places(spec: TensorSpec, factor: Factor) -> list[tuple[str, tuple[int, int] | None]]:
    """Groups of a factor, each with the slice of the tensor to which it is confined."""
    if factor.group is None:
        return []
    if not factor.group.endswith("*"):
        return [(factor.group, None)]
    (stacked,) = spec.axis_dims("X")
    return [(f"{factor.group[:-1]}{x}", (stacked, x)) for x in range(spec.factors[stacked].size)]
