"""What every objective offers, and the registry of objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from warmstart.foundation.registry import Registry
from warmstart.foundation.tasks import Task

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

USUAL: dict[Task, str] = {"causal": "causal", "masked": "masked", "seq2seq": "span"}
"""What the objective `auto` stands for."""


class BatchShape(NamedTuple):
    """What the model computes for one block of text."""

    inputs: int
    """Positions that the model (or its encoder) reads."""
    targets: int | None = None
    """Positions that the decoder of an encoder-decoder model reads."""
    predicted: float = 1.0
    """Expected share of the last stack's positions for which the head is computed."""
    teacher: int = 0
    """Positions that a frozen teacher (or its encoder) reads."""
    taught: float = 0.0
    """Expected share of the teacher's positions for which its head is computed."""
    teacher_targets: int | None = None
    """Positions that the decoder of an encoder-decoder teacher reads."""
    passes: int = 1
    """How often all of it is computed for a batch."""


class Objective(ABC):
    """What a model is asked: turns blocks of token ids into inputs with labels, and gives their loss.

    Args:
        settings: Options of the objective.
        tokenizer: Tokenizer of the model; tells special tokens and where words start.

    An objective that needs more, such as a teacher, takes it as keyword arguments with defaults and names
    them in `parts`.
    """

    task: ClassVar[Task]
    """Kind of model that can be asked this."""
    parts: ClassVar[tuple[str, ...]] = ()
    """Keyword arguments of the class beside settings and tokenizer."""
    parallel: ClassVar[bool] = False
    """Whether blocks may be (3, L): two cuts of the same text into tokens (see `objectives._parallel`)."""
    asked: ClassVar[Mapping[Task, str]] = {}
    """Names under which the same is asked of other kinds of model."""
    fingerprint: str | None = None
    """Hash of the parts; a run is continued only with the same ones."""
    tutor: PreTrainedModel | None = None
    """A frozen model that teaches; None without one, and where the trained model teaches itself."""
    teaching: bool = True
    """Whether a teacher is read in the step at hand; the FLOPs of the others do without it."""

    def __init__(self, settings: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        self.settings, self.tokenizer = settings, tokenizer

    @property
    def auto_class(self) -> str:
        """Name of the transformers class that loads a model for this objective."""
        from warmstart.checkpoint.architecture import AUTO_CLASS

        return AUTO_CLASS[self.task]

    def companions(self, model: nn.Module) -> nn.Module | None:
        """Modules that learn beside `model` and are dropped on save, such as a second head; made once.

        They are handed to every call of `loss`. Random numbers drawn here depend on the run's seed alone.
        """
        return None

    def prepare(self, model: nn.Module, device: torch.device) -> None:  # noqa: B027
        """Called once before the first step, when `model` is on `device`: a teacher moves there as well."""

    def at(self, progress: float) -> None:  # noqa: B027
        """Called before each step with the share of the budget at the middle of that step."""

    def finish(self) -> None:  # noqa: B027
        """Called once when the run ends or stops, however it does."""

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

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], companions: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """Summed negative log-likelihood of the labels in nats (differentiable) and their number.

        The sum, not the mean: means over passes and processes of unequal size do not add up. See
        [`token_losses`][warmstart.evaluation.head.token_losses] for how the logits are avoided.

        Args:
            model: A model of this task, also compiled or distributed.
            batch: What `collate` returned, on the model's device.
            companions: What `companions` returned; without them the loss of the model alone.
        """
        from warmstart.evaluation.head import token_losses

        total, losses = token_losses(model, self.inputs(model, batch), self.targets(batch["labels"]))
        return total, losses.new_tensor(float(losses.numel()))

    def inputs(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Arguments of the model's `forward` for a batch."""
        return {name: value for name, value in batch.items() if name != "labels"}

    def reading(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Positions of a batch that hold text and no padding, (B, L); None where all do."""
        mask = batch.get("attention_mask")
        return None if mask is None else mask.bool()

    def targets(self, labels: Tensor) -> Tensor:
        """The token that each position must predict, from `labels` in the convention of transformers."""
        return labels


objectives: Registry[type[Objective]] = Registry("objective", "warmstart.objectives")
