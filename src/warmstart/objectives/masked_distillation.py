"""Distillation of masked models: the hidden words, and what a teacher expects there."""

from __future__ import annotations

from warmstart.objectives._base import objectives
from warmstart.objectives._distilled import DistillationSettings, Distilled
from warmstart.objectives.masked import Masked, MaskedSettings


class MaskedDistillationSettings(DistillationSettings, MaskedSettings):
    """Options of masked language modelling and of learning from a teacher's distribution."""


@objectives.register(
    "masked-distillation",
    settings=MaskedDistillationSettings,
    title="DistilBERT, a distilled version of BERT: smaller, faster, cheaper and lighter",
    arxiv="1910.01108",
    tags=("masked", "random"),
)
class MaskedDistillation(Distilled, Masked):
    """Masked language modelling with a teacher, who sees the same masks: `a CE(text) + b T^2 D` at each.

    See [`Distillation`][warmstart.objectives.distillation.Distillation]. DistilBERT teaches at the masked
    places too, beside a cosine loss on hidden states, which is not part of this objective.
    """

    settings: MaskedDistillationSettings
