"""A masked model that begins with its lower layers."""

from __future__ import annotations

from warmstart.objectives._base import objectives
from warmstart.objectives._two_stage import TwoStage, TwoStageSettings
from warmstart.objectives.masked import Masked, MaskedSettings


class MaskedTwoStageSettings(TwoStageSettings, MaskedSettings):
    """Options of masked language modelling and of the sub-models that begin."""


@objectives.register(
    "masked-two-stage",
    settings=MaskedTwoStageSettings,
    title="bert2BERT: Towards Reusable Pretrained Language Models",
    arxiv="2110.07143",
    tags=("masked", "random"),
)
class MaskedTwoStage(TwoStage, Masked):
    """Masked language modelling by sub-models of the lower layers first, and by the whole model then.

    See [`CausalTwoStage`][warmstart.objectives.two_stage.CausalTwoStage].
    """

    settings: MaskedTwoStageSettings
