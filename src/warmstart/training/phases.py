"""Which parameters learn, and from when on: presets, patterns, and freeze schedules made of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from warmstart.foundation.errors import UserError
from warmstart.training.parameters import vocabulary_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Trainable = str | list[str] | Mapping[str, float]
"""A preset, a list of regular expressions, or a table of phases: preset or pattern to end of the phase."""


@dataclass(frozen=True)
class Phase:
    """What learns until a share of the budget is used.

    Attributes:
        end: Share of the budget at which the phase ends, in (0, 1].
        names: Parameters that learn.
    """

    end: float
    names: frozenset[str]


def phases(model: PreTrainedModel, trainable: Trainable) -> list[Phase]:
    """The phases that `TrainSettings.trainable` describes; a single one without a schedule.

    Raises:
        UserError: A pattern is malformed or matches nothing; the preset needs the anatomy of a family that
            has no table.
    """
    if not isinstance(trainable, Mapping):
        return [Phase(1.0, _chosen(model, trainable))]
    return [Phase(end, _chosen(model, name)) for name, end in trainable.items()]


@contextmanager
def only_trainable(model: PreTrainedModel, trainable: Trainable) -> Iterator[list[Phase]]:
    """Set `requires_grad` to what learns in any phase; after the block it is what it was before."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    found = phases(model, trainable)
    ever = frozenset[str]().union(*(phase.names for phase in found))
    try:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in ever)
        yield found
    finally:
        for parameter, flag in before.items():
            parameter.requires_grad_(flag)


def resting(schedule: list[Phase], progress: float) -> frozenset[str]:
    """Parameters that learn in another phase, but not at this share of the budget."""
    if len(schedule) == 1:
        return frozenset()
    now = next((phase for phase in schedule if progress < phase.end), schedule[-1])
    return frozenset[str]().union(*(phase.names for phase in schedule)) - now.names


def _chosen(model: PreTrainedModel, trainable: str | list[str]) -> frozenset[str]:
    named = dict(model.named_parameters())
    if trainable == "all":
        return frozenset(named)
    if trainable == "embeddings":
        rows = vocabulary_parameters(model)
        return frozenset(name for name, p in named.items() if p in rows)
    if trainable == "2x2ls":
        return _outer_layers(model, named)
    wanted = [trainable] if isinstance(trainable, str) else trainable
    try:
        patterns = [re.compile(pattern) for pattern in wanted]
    except re.error as error:
        raise UserError(f"trainable: {error.pattern!r} is not a regular expression ({error})") from None
    chosen = frozenset(name for name in named if any(pattern.search(name) for pattern in patterns))
    if not chosen:
        some = ", ".join(list(named)[:3])
        raise UserError(
            f"trainable: no parameter name contains any of {wanted}", fix=f"names look like {some}, …"
        )
    return chosen


def _outer_layers(model: PreTrainedModel, named: Mapping[str, nn.Parameter]) -> frozenset[str]:
    """Input rows, head, and the first two and last two layers of every stack."""
    from warmstart.anatomy import anatomy_of_model

    anatomy = anatomy_of_model(model)
    rows = vocabulary_parameters(model)
    specs = anatomy.recognise(named)

    def outer(name: str) -> bool:
        spec = specs.get(name)
        if spec is None or spec.layer is None or spec.stack is None:
            return False
        return spec.layer < 2 or spec.layer >= anatomy.layers[spec.stack] - 2

    return frozenset(name for name, p in named.items() if p in rows or outer(name))
