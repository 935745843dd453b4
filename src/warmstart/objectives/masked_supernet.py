"""A masked model trained together with its sub-networks."""

from __future__ import annotations

from warmstart.objectives._base import objectives
from warmstart.objectives._supernet import SuperNet, SuperNetSettings
from warmstart.objectives.masked import Masked, MaskedSettings


class MaskedSuperNetSettings(SuperNetSettings, MaskedSettings):
    """Options of masked language modelling and of the sub-networks that learn it."""


@objectives.register(
    "masked-supernet",
    settings=MaskedSuperNetSettings,
    title="Structural Pruning of Pre-trained Language Models via Neural Architecture Search",
    arxiv="2405.02267",
    tags=("masked", "random"),
)
class MaskedSuperNet(SuperNet, Masked):
    """Masked language modelling by the whole model and by sub-networks that share its weights.

    See [`CausalSuperNet`][warmstart.objectives.supernet.CausalSuperNet]. All networks of a step see the same
    hidden words.
    """

    settings: MaskedSuperNetSettings
