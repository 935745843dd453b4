"""Floating-point operations of training: exact from the family table, and the closed forms for GPT shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from warmstart.anatomy import Anatomy

Recompute = Literal["none", "selective", "full"]


@dataclass(frozen=True)
class Operations:
    """Operations of one forward pass over one sequence (see `anatomy.flops`).

    Attributes:
        blocks: In all blocks.
        scores: The part of `blocks` in scores and weighted sums of the attentions.
        head: In the head.
    """

    blocks: float
    scores: float
    head: float

    @property
    def forward(self) -> float:
        """Blocks and head."""
        return self.blocks + self.head

    def training(self, recompute: Recompute = "none") -> float:
        """Forward and backward pass: three times the forward pass, and what is computed twice.

        `full` recomputes the blocks, `selective` the attentions' scores; the head is never recomputed.
        """
        again = {"none": 0.0, "selective": self.scores, "full": self.blocks}[recompute]
        return 3 * self.forward + again


def operations_of(
    anatomy: Anatomy,
    sequence_length: int,
    *,
    target_length: int | None = None,
    predicted_fraction: float = 1.0,
) -> Operations:
    """Count the forward pass over one sequence.

    Args:
        anatomy: The model.
        sequence_length: Tokens per sequence (of the encoder, where there are two stacks).
        target_length: Tokens of the decoder of an encoder-decoder model.
        predicted_fraction: Share of the tokens for which the head is computed.
    """
    lengths = {"target_length": target_length}
    blocks = anatomy.flops(sequence_length, predicted_fraction=0.0, **lengths)
    whole = anatomy.flops(sequence_length, predicted_fraction=predicted_fraction, **lengths)
    # all but the scores grow in proportion to the length: f(2 s) - 2 f(s) = 2 * scores(s)
    doubled = {"target_length": None if target_length is None else 2 * target_length}
    twice = anatomy.flops(2 * sequence_length, predicted_fraction=0.0, **doubled)
    return Operations(blocks=blocks, scores=twice / 2 - blocks, head=whole - blocks)


def gpt_parameters(layers: int, hidden: int, vocabulary: int, positions: int) -> float:
    """`12 L H^2 (1 + 13/(12 H)) + (V + S) H`: a GPT with biases and a tied head, less the final norm's 2 H.

    From Narayanan et al., "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM"
    (arXiv 2104.04473).
    """
    return 12 * layers * hidden**2 * (1 + 13 / (12 * hidden)) + (vocabulary + positions) * hidden


def gpt_operations(
    batch: int, length: int, layers: int, hidden: int, vocabulary: int, *, recompute: bool = True
) -> float:
    """Operations of one training step of a GPT with feed-forward width 4 H.

    With full recomputation `96 B S L H^2 (1 + S/(6 H) + V/(16 L H))` (arXiv 2104.04473), without it
    `72 B S L H^2 (1 + S/(6 H) + V/(12 L H))`. Some texts only replace 96 by 72, which takes a quarter of
    the head's operations away although the head is never recomputed; the numbers here are those that run.
    """
    factor, head = (96, 16) if recompute else (72, 12)
    inner = 1 + length / (6 * hidden) + vocabulary / (head * layers * hidden)
    return factor * batch * length * layers * hidden**2 * inner
