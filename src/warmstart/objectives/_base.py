"""What every objective offers, and the registry of objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from warmstart.foundation.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

Task = Literal["causal", "masked", "seq2seq"]
AUTO_CLASSES: dict[Task, str] = {
    "causal": "AutoModelForCausalLM",
    "masked": "AutoModelForMaskedLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
}


class BatchShape(NamedTuple):
    """What the model computes for one block of text."""

    inputs: int
    """Positions that the model (or its encoder) reads."""
    targets: int | None = None
    """Positions that the decoder of an encoder-decoder model reads."""
    predicted: float = 1.0
    """Expected share of the last stack's positions for which the head is computed."""


class Objective(ABC):
    """What a model is asked: turns blocks of token ids into inputs with labels, and gives their loss.

    Args:
        settings: Options of the objective.
        tokenizer: Tokenizer of the model; tells special tokens and where words start.
    """

    task: ClassVar[Task]
    """Kind of model that can be asked this."""

    def __init__(self, settings: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self.settings, self.tokenizer = settings, tokenizer

    @property
    def auto_class(self) -> str:
        """Name of the transformers class that loads a model for this objective."""
        return AUTO_CLASSES[self.task]

    def shape(self, tokens: int) -> BatchShape:
        """Positions computed for a block of `tokens` tokens; what FLOPs are counted from."""
        return BatchShape(tokens)

    @abstractmethod
    def collate(self, blocks: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """Model inputs and labels, int64; label -100 is ignored. Equal blocks and draws give equal results.

        Args:
            blocks: Token ids, (B, L) integers.
            rng: The only source of randomness; causal language modelling draws nothing.
        """

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed negative log-likelihood of the labels in nats (differentiable) and their number.

        The sum, not the mean: means over passes and processes of unequal size do not add up. See
        [`token_losses`][warmstart.evaluation.head.token_losses] for how the logits are avoided.

        Args:
            model: A model of this task, also compiled or distributed.
            batch: What `collate` returned, on the model's device.
        """
        from warmstart.evaluation.head import token_losses

        inputs = {name: value for name, value in batch.items() if name != "labels"}
        targets = self.targets(batch["labels"])
        total, losses = token_losses(model, inputs, targets)
        return total, losses.new_tensor(float(losses.numel()))

    def targets(self, labels: Tensor) -> Tensor:
        """The token that each position must predict, from `labels` in the convention of transformers."""
        return labels


objectives: Registry[type[Objective]] = Registry("objective", "warmstart.objectives")
