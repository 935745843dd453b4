"""How large the weights of an entry are; needs no text."""

from __future__ import annotations

from typing import Literal

import numpy as np

from warmstart.shape.importance import ImportanceContext, ImportanceSettings, Scores, importances
from warmstart.shape.importance._members import per_entry


class MagnitudeSettings(ImportanceSettings):
    """Which norm of which weights."""

    norm: Literal[1, 2] = 2
    """1 adds up absolute values, 2 squares."""
    weights: Literal["all", "produced", "consumed"] = "all"
    """Weights that write the entry, that read it, or all of them."""


@importances.register(
    "magnitude",
    settings=MagnitudeSettings,
    title="Pruning Filters for Efficient ConvNets",
    arxiv="1608.08710",
)
def magnitude(settings: MagnitudeSettings, context: ImportanceContext) -> Scores:
    """`(sum |w|^p)^(1/p)` over the weights that write and that read an entry, biases included, norms not.

    The stored tensors are read one after another. A unit whose weights are small on one side alone is
    overrated, as is one that is never active.
    """
    wanted = {group.name: np.zeros(group.size) for group in context.groups}
    members = {"all": "oi", "produced": "o", "consumed": "i"}[settings.weights]
    places: dict[str, list[tuple[str, int]]] = {}
    for group in context.groups:
        for number, member in enumerate(group.members):
            if member.role in members and member.tensor in context.names:
                places.setdefault(member.tensor, []).append((group.name, number))
    for name, found in places.items():
        values = context.read(name).double().abs()
        values = values if settings.norm == 1 else values.square_()
        for group_name, number in found:
            member = context.anatomy.groups[group_name].members[number]
            if (part := per_entry(context.anatomy.tensors[name], member, values)) is not None:
                wanted[group_name] += part.numpy()
    return {name: total ** (1 / settings.norm) for name, total in wanted.items()}
