"""Classifying texts by labels, by what a teacher says of them, or both: the objective."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.objectives._base import BatchShape, Objective
from warmstart.objectives._numbered import encoder_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


class ClassLossSettings(Settings):
    """What a classifier of texts learns from."""

    kind: Literal["soft-cross-entropy", "forward-kl", "reverse-kl", "symmetric-kl", "jensen-shannon"] = (
        "soft-cross-entropy"
    )
    """How the student is compared with the teacher: `soft-cross-entropy`, or a divergence."""
    alpha: float = Field(default=0.0, ge=0)
    """Weight of the labels."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of the teacher."""
    temperature: float = Field(default=1.0, gt=0)
    """T, by which logits are divided before teacher and student are compared."""
    mixing: float = Field(default=0.5, gt=0, lt=1)
    """Teacher's share in `symmetric-kl` and `jensen-shannon`."""


class Classes(Objective):
    """`alpha CE(label) + beta T^2 D(teacher, student)` of each text, see
    [`class_loss`][warmstart.objectives._divergence.class_loss].

    The teacher has read every text before, once and in its own tokens, so it costs nothing in a step. It is
    no objective by name: it needs texts with labels, which the step `train-classifier` brings.

    Args:
        settings: Weights and divergence.
        tokenizer: Of the student.
        taught: Logits of the teacher by number of the text, `(N, C)`; None without a teacher.
    """

    task = "masked"

    def __init__(
        self,
        settings: ClassLossSettings,
        tokenizer: PreTrainedTokenizerBase,
        *,
        taught: np.ndarray | None = None,
    ) -> None:
        super().__init__(settings, tokenizer)
        self._taught = None if taught is None else taught.astype(np.float32)
        told = [settings.digest(), "" if self._taught is None else self._taught.tobytes().hex()]
        self.fingerprint = hashlib.sha256("".join(told).encode()).hexdigest()[:16]

    def shape(self, tokens: int) -> BatchShape:
        """The whole block is read: an upper bound, as batches end with their longest text."""
        return BatchShape(tokens, predicted=0.0)

    def collate(self, blocks: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, (B, L'), `labels`, (B,), and the teacher's logits `taught`."""
        import torch

        classes = torch.from_numpy(np.ascontiguousarray(blocks[:, 1, 1])).long()
        batch = encoder_inputs(blocks, self.tokenizer)
        batch["labels"] = classes.masked_fill(classes < 0, -100)
        if self._taught is not None:
            batch["taught"] = torch.from_numpy(self._taught[blocks[:, 1, 0]])
        return batch

    def inputs(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without labels and the teacher's logits."""
        return {name: batch[name] for name in ("input_ids", "attention_mask")}

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], companions: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sum over the texts of the batch, and their number."""
        from torch.nn import functional as F

        from warmstart.objectives._divergence import class_loss

        options: Any = self.settings
        logits, labels = model(**self.inputs(model, batch)).logits, batch["labels"]
        count = logits.float().new_tensor(float(len(logits)))
        if "taught" in batch:
            mean = class_loss(
                logits,
                batch["taught"],
                labels if options.alpha else None,
                kind=options.kind,
                alpha=options.alpha,
                beta=options.beta,
                temperature=options.temperature,
                mixing=options.mixing,
            )
            return mean * len(logits), count
        total = F.cross_entropy(logits.float(), labels, reduction="sum", ignore_index=-100)
        return options.alpha * total, count
