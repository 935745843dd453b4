"""Balanced actor initialisation: two tuned models, balanced, then balanced with their pretrained one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.merge import Tensors, merges

if TYPE_CHECKING:
    import torch


class BaiSettings(Settings):
    """The two balances."""

    alpha: float = Field(default=0.5, ge=0, le=1)
    """Share of the instruction-tuned model among the two tuned ones."""
    beta: float = Field(default=0.5, ge=0, le=1)
    """Share of the tuned ones against the pretrained model."""


@merges.register(
    "bai",
    settings=BaiSettings,
    title="Balanced Actor Initialization: Stable RLHF Training of Distillation-Based Reasoning Models",
)
def bai(settings: BaiSettings, tensors: Tensors) -> Iterator[torch.Tensor]:
    """`b (a I + (1 - a) R) + (1 - b) P`: models are I (instruction-tuned) and R (reasoning); the base is P.

    In task vectors `P + b (a (I - P) + (1 - a) (R - P))`: b also scales the whole shift. The authors stress
    balanced shares; their best values could not be confirmed, so both are one half by default.

    Raises:
        UserError: Not two models, or no base.
    """
    if len(tensors.models) != 2:
        raise UserError(
            f"two tuned models are balanced, and {len(tensors.models)} are given",
            where="bai",
            fix="give the instruction-tuned one, then the reasoning one, and base_model, the pretrained one",
        )
    a, b = settings.alpha, settings.beta
    for base, instructed, reasoning in zip(tensors.need_base()(), *(model() for model in tensors.models)):
        yield instructed * (a * b) + reasoning * ((1 - a) * b) + base * (1 - b)
