"""Distillation of encoder-decoder models: the removed spans, and what a teacher expects there."""

from __future__ import annotations

from warmstart.objectives._base import objectives
from warmstart.objectives._distilled import DistillationSettings, Distilled
from warmstart.objectives.span import Span, SpanSettings


class SpanDistillationSettings(DistillationSettings, SpanSettings):
    """Options of span corruption and of learning from a teacher's distribution."""


@objectives.register(
    "span-distillation",
    settings=SpanDistillationSettings,
    title="Distilling the Knowledge in a Neural Network",
    arxiv="1503.02531",
    tags=("seq2seq", "random"),
)
class SpanDistillation(Distilled, Span):
    """Span corruption with a teacher, who reads the same spans: `a CE(text) + b T^2 D` at each decoder place.

    See [`Distillation`][warmstart.objectives.distillation.Distillation].
    """

    settings: SpanDistillationSettings
