"""How much the loss would change, to first order, without an entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from warmstart.anatomy import Anatomy, AxisGroup, TensorSpec
from warmstart.shape.calibration import Calibration
from warmstart.shape.importance import ImportanceContext, ImportanceSettings, Scores, importances
from warmstart.shape.importance._members import per_entry

if TYPE_CHECKING:
    from torch import Tensor


class TaylorSettings(ImportanceSettings):
    """What is added up."""

    absolute: Literal["weight", "entry"] = "weight"
    """`weight`: the size of each weight's own change, added up. `entry`: the size of the change when the
    whole entry goes, where those of its weights may cancel."""


@importances.register(
    "taylor",
    settings=TaylorSettings,
    title="LLM-Pruner: On the Structural Pruning of Large Language Models",
    arxiv="2305.11627",
    tags=("text",),
)
def taylor(settings: TaylorSettings, context: ImportanceContext) -> Scores:
    """`sum_w |w dL/dw|` over all weights of an entry, with the gradient of the mean loss, in one pass.

    With `absolute: entry` it is `|sum_w w dL/dw|` over the weights that read the entry (for the hidden axis
    those that write it): what the loss changes by, to first order, when they become zero. All weights of a
    unit together would count it twice, as `L` is homogeneous in what writes and what reads it alike.

    The gradients of the whole model are held once, so it takes twice the memory of the weights. Groups whose
    weights the language model lacks (BERT's pooler) score zero.

    Raises:
        UserError: No text.
    """
    calibration = context.calibrate("the importance 'taylor'")
    anatomy = calibration.anatomy
    changes = _changes(calibration)
    scores = {}
    for asked in context.groups:
        group = anatomy.groups.get(asked.name, asked)
        total = np.zeros(group.size)
        for spec, values, number in _parts(anatomy, group, changes, settings.absolute):
            values = values.abs() if settings.absolute == "weight" else values
            if (part := per_entry(spec, group.members[number], values)) is not None:
                total += part.double().cpu().numpy()
        scores[group.name] = np.abs(total)
    return scores


def _changes(calibration: Calibration) -> dict[str, Tensor]:
    """`w dL/dw` of every parameter, by the canonical name of its storage."""
    import torch

    model = calibration.model
    asked = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    model.requires_grad_(True)
    targets = 0.0
    try:
        with torch.enable_grad():
            for batch in calibration.batches:
                total, count = calibration.loss(batch)
                total.backward()
                targets += float(count)
        specs = calibration.anatomy.recognise(dict(model.named_parameters()))
        return {
            specs[name].tied_to or specs[name].name: parameter.grad.mul_(parameter.detach()).div_(targets)
            for name, parameter in model.named_parameters()
            if parameter.grad is not None and name in specs
        }
    finally:
        model.zero_grad(set_to_none=True)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(asked[name])


def _parts(
    anatomy: Anatomy, group: AxisGroup, changes: dict[str, Tensor], absolute: str
) -> list[tuple[TensorSpec, Tensor, int]]:
    roles = {"weight": "oi=", "entry": "o" if group.name == "H" else "i"}[absolute]
    return [
        (anatomy.tensors[member.tensor], changes[member.tensor], number)
        for number, member in enumerate(group.members)
        if member.role in roles and member.tensor in changes
    ]
