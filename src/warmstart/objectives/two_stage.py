"""A causal model that begins with its lower layers."""

from __future__ import annotations

from warmstart.objectives._base import objectives
from warmstart.objectives._two_stage import TwoStage, TwoStageSettings
from warmstart.objectives.causal import Causal


@objectives.register(
    "two-stage",
    settings=TwoStageSettings,
    title="bert2BERT: Towards Reusable Pretrained Language Models",
    arxiv="2110.07143",
    tags=("causal",),
)
class CausalTwoStage(TwoStage, Causal):
    """Next-token prediction by sub-models of the lower layers first, and by the whole model then.

    The training of a model that was grown: its layers above are copies, which sub-models let part. For masked
    models `two-stage` stands for `masked-two-stage`.
    """

    asked = {"causal": "two-stage", "masked": "masked-two-stage"}
