"""Sums over a tensor, for each entry of an axis that it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warmstart.anatomy import Member, TensorSpec

if TYPE_CHECKING:
    from torch import Tensor


def per_entry(spec: TensorSpec, member: Member, values: Tensor) -> Tensor | None:
    """What stands at each entry of a member of a group, added up: `(size,)`; None for a whole tensor."""
    if member.dim is None:
        return None
    view = spec.view(values)
    if member.at is not None:
        dim, index = member.at
        view = view.narrow(dim, index, 1)
    others = [d for d in range(view.ndim) if d != member.dim]
    return view.sum(others) if others else view
