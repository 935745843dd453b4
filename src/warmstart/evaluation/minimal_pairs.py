"""Minimal pairs: does a model find the right one of two texts more likely?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from warmstart.evaluation.bits import bits_per_byte
from warmstart.foundation.errors import UserError
from warmstart.foundation.tasks import Task

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase


class MinimalPairs(BaseModel):
    """How a model judges pairs of texts of which the first is right."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    accuracy: float
    """Share of pairs whose first text costs fewer bits; equal ones count half."""
    pairs: int
    """Pairs."""
    gap: float
    """Mean number of bits that the second text costs more than the first."""
    bits_per_token: float
    """Bits that a token of the first texts costs."""
    bits_per_byte: float
    """Bits that a byte of the first texts costs."""


def minimal_pairs(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[str, str]],
    *,
    task: Task,
    context_length: int = 512,
    per_byte: bool = False,
    bf16: bool = False,
) -> MinimalPairs:
    """Compare the cost of both texts of each pair: `-log2 p(text)`, in all or per byte.

    Args:
        model: A causal language model: the others have no likelihood of a text.
        tokenizer: Its tokenizer.
        pairs: Right text, wrong text.
        task: That of the model.
        context_length: Positions that the model sees at once.
        per_byte: Divide by the bytes of each text, for pairs of unequal length.
        bf16: Whether matrix products run in bfloat16.

    Raises:
        UserError: Not a causal model, or no pairs.
    """
    if task != "causal":
        raise UserError(f"pairs are judged by causal models, and this is a {task} one")
    if not pairs:
        raise UserError("there is no pair to judge")
    costs = []
    for side in zip(*pairs):
        found = bits_per_byte(
            model,
            tokenizer,
            side,
            task=task,
            context_length=context_length,
            bf16=bf16,
            per_document=True,
        )
        assert found.per_document is not None
        table = np.array(found.per_document)
        costs.append((table[:, 0] / math.log(2) / (table[:, 1] if per_byte else 1), found))
    (first, one), (second, _) = costs
    return MinimalPairs(
        accuracy=float(((first < second) + 0.5 * (first == second)).mean()),
        pairs=len(first),
        gap=float((second - first).mean()),
        bits_per_token=one.nats / math.log(2) / one.tokens,
        bits_per_byte=one.bpb,
    )
