"""The representation of a weight: each dimension is a tuple of factor axes and has a role."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any, Literal, TypeVar, cast

from warmstart.foundation.errors import UserError

Role = Literal["o", "i", "=", "k"]
Reads = Literal["self", "encoder", "patches", "first"]
Layout = Literal["files", "memory"]
Tensor = TypeVar("Tensor", bound=Any)
_DIM = re.compile(r"\s*(?:\(([^()]+)\)|([\w]+)):([oik=])")


@dataclass(frozen=True)
class Factor:
    """One factor of a dimension.

    Attributes:
        axis: Axis letter of the family table, or None for a fixed constant (the 3 of a fused q, k, v).
        size: Number of entries.
        group: Name of the axis group, such as `H` or `F@decoder.3`; None for a constant. All factors of one
            group must be resized or permuted with one and the same index map. In `F@decoder.3.*` every entry
            of the tensor's dimension `X` has a group of its own: `F@decoder.3.0`, `F@decoder.3.1`, ….
    """

    axis: str | None
    size: int
    group: str | None


@dataclass(frozen=True)
class Dim:
    """One dimension of the stored tensor: its factors in row-major order and its role.

    Roles: `o` produced (new entries copy), `i` consumed by a sum (new entries split or are zero),
    `=` elementwise (gain or bias of a norm over this dimension), `k` index of a table.
    """

    factors: tuple[Factor, ...]
    role: Role

    @property
    def size(self) -> int:
        """Product of the factors' sizes."""
        return prod(factor.size for factor in self.factors)


@dataclass(frozen=True)
class Entry:
    """Which entry of an axis a whole tensor is, where each entry is a tensor of its own (experts in files).

    Attributes:
        axis: Axis letter of the family table.
        index: The entry.
        size: Number of entries.
        group: Name of the axis group, such as `X@decoder.3`.
    """

    axis: str
    index: int
    size: int
    group: str


@dataclass(frozen=True)
class TensorSpec:
    """What one weight means.

    Attributes:
        name: Canonical name in the model with its head, such as `model.layers.0.mlp.up_proj.weight`.
        dims: Meaning of each dimension.
        part: `embeddings`, `positions`, `attention`, `mlp`, `norms`, `head` or `other`.
        unit: `body` (always there), or a unit that a model class has or lacks as a whole: `head`, ….
        stack: Name of the stack (`encoder`, `decoder`) or None outside of the blocks.
        layer: Index of the block in its stack, or None.
        reads: What its input is: `self`, the states of its own stack; `encoder`, those of another stack
            (cross-attention k and v); `patches` of an image; the state of the `first` token alone.
        aliases: Other names under which the same tensor may be stored.
        tied_to: Name of the weight whose storage this one shares, or None.
        template: The name with `{l}` for the layer and `{x}` for the expert, as the table has it.
        entry: The expert that it is, or None.
        share: Share of the tokens that meet it: 1, or that of the experts to which a token is routed.
    """

    name: str
    dims: tuple[Dim, ...]
    part: str
    unit: str = "body"
    stack: str | None = None
    layer: int | None = None
    reads: Reads = "self"
    aliases: tuple[str, ...] = ()
    tied_to: str | None = None
    template: str = ""
    entry: Entry | None = None
    share: Fraction = Fraction(1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape as stored."""
        return tuple(dim.size for dim in self.dims)

    @property
    def factors(self) -> tuple[Factor, ...]:
        """All factors, in order of the dimensions of the viewed tensor."""
        return tuple(factor for dim in self.dims for factor in dim.factors)

    @property
    def roles(self) -> tuple[Role, ...]:
        """Role of each dimension of the viewed tensor."""
        return tuple(dim.role for dim in self.dims for _ in dim.factors)

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)

    @property
    def is_matmul(self) -> bool:
        """Whether tokens are multiplied by this weight: it has a produced and a consumed dimension."""
        return {"o", "i"} <= {dim.role for dim in self.dims}

    def axis_dims(self, axis: str) -> tuple[int, ...]:
        """Dimensions of the viewed tensor that belong to the axis letter `axis`."""
        return tuple(index for index, factor in enumerate(self.factors) if factor.axis == axis)

    def view(self, tensor: Tensor) -> Tensor:
        """Reshape a stored tensor (NumPy or torch) to one dimension per factor.

        A GPT-2 `c_attn.weight` of shape `(H, 3·h·e)` becomes `(H, 3, h, e)`.

        Raises:
            UserError: The tensor does not have the stored shape.
        """
        if tuple(tensor.shape) != self.shape:
            raise UserError(
                f"the tensor {self.name!r} has shape {tuple(tensor.shape)}, expected {self.shape}",
                fix="the config and the weights must come from the same checkpoint",
            )
        return cast(Tensor, tensor.reshape(tuple(factor.size for factor in self.factors)))

    def unview(self, tensor: Tensor) -> Tensor:
        """Reshape a viewed tensor back to one dimension per stored dimension.

        The sizes may have changed since [`view`][warmstart.anatomy.notation.TensorSpec.view]; only their
        number must not. The entries and their order are those of the viewed tensor.
        """
        if tensor.ndim != len(self.factors):
            raise ValueError(f"{self.name}: {tensor.ndim} dimensions, expected {len(self.factors)}")
        sizes = iter(tensor.shape)
        return cast(
            Tensor, tensor.reshape(tuple(prod(next(sizes) for _ in dim.factors) for dim in self.dims))
        )


def parse_dims(text: str, sizes: Mapping[str, int], groups: Mapping[str, str]) -> tuple[Dim, ...]:
    """Read the compact notation of the family tables, `"H:i (3 h e):o"`.

    Args:
        text: Dimensions in stored order: an axis letter, or factors in parentheses, then `:` and the role.
        sizes: Size of every axis.
        groups: Group name of every axis at this place.

    Raises:
        ValueError: The text is not in the notation, or an axis is not in the table.
    """
    dims, position = [], 0
    while found := _DIM.match(text, position):
        factors = []
        for word in (found[1] or found[2]).split():
            if word.isdigit():
                factors.append(Factor(None, int(word), None))
            elif word in sizes:
                factors.append(Factor(word, sizes[word], groups[word]))
            else:
                raise ValueError(f"unknown axis {word!r} in {text!r}")
        dims.append(Dim(tuple(factors), cast(Role, found[3])))
        position = found.end()
    if not dims or text[position:].strip():
        raise ValueError(f"not in the notation of dimensions: {text!r}")
    return tuple(dims)
