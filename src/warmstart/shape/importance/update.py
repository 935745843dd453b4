"""How far the weights of an entry have moved since another checkpoint; needs no text."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from warmstart.anatomy import Anatomy
from warmstart.foundation.errors import UserError
from warmstart.shape.importance import ImportanceContext, ImportanceSettings, Scores, importances
from warmstart.shape.importance._members import per_entry


class UpdateSettings(ImportanceSettings):
    """Since when."""

    reference: str = Field(min_length=1)
    """Checkpoint that the model was trained from, of the same sizes: folder, hub id, `name@revision` or
    `${step}`."""


@importances.register(
    "update",
    settings=UpdateSettings,
    title="DSEE: Dually Sparsity-embedded Efficient Tuning of Pre-trained Language Models",
    arxiv="2111.00160",
)
def update(settings: UpdateSettings, context: ImportanceContext) -> Scores:
    """`sum |W - W_0|` over the weights that write and that read an entry, biases included, norms not.

    W_0 is the model before it was tuned. Where only queries and values were (`wrap` with `low-rank` or
    `sparse-low-rank`, then `export`), a head's importance is the sum of `|s (U V + S)|` over its rows of
    these two, which is how DSEE's scripts rank heads. An axis on which nothing moved cannot be ranked so; of
    units, which those scripts choose by gates trained with an L1 penalty, `taylor` says what matters.

    Raises:
        UserError: A reference of other sizes, or one from which nothing differs where entries are ranked.
    """
    from warmstart.checkpoint import resolve
    from warmstart.shape.stored import Stored

    before = Stored(resolve(settings.reference))
    _check_sizes(context.anatomy, before.anatomy, settings.reference)
    wanted = {group.name: np.zeros(group.size) for group in context.groups}
    places: dict[str, list[tuple[str, int]]] = {}
    for group in context.groups:
        for number, member in enumerate(group.members):
            if member.role in "oi" and member.tensor in context.names and member.tensor in before.names:
                places.setdefault(member.tensor, []).append((group.name, number))
    for name, found in places.items():
        moved = (context.read(name).double() - before.read(name).double()).abs()
        for group_name, number in found:
            member = context.anatomy.groups[group_name].members[number]
            if (part := per_entry(context.anatomy.tensors[name], member, moved)) is not None:
                wanted[group_name] += part.numpy()
    for group_name, total in wanted.items():
        if not total.any():
            raise UserError(
                f"no weight of {group_name} differs from the reference, so its entries cannot be ranked",
                where=settings.reference,
                fix="take another importance for this axis, in a step of its own",
            )
    return wanted


def _check_sizes(here: Anatomy, there: Anatomy, where: str) -> None:
    if dict(here.sizes) != dict(there.sizes) or dict(here.layers) != dict(there.layers):
        raise UserError(
            "the reference has other sizes than the model",
            where=where,
            fix="give the checkpoint that the model was trained from",
        )
