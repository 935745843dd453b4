"""What objectives share that learn from a teacher's distribution: weights, and the teacher's dismissal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.objectives._base import BatchShape, Objective

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from warmstart.objectives._divergence import Top
    from warmstart.objectives._voice import Voice
    from warmstart.training.batches import Blocks


class DistillationSettings(Settings):
    """Options of learning from a teacher's distribution."""

    teacher: str | None = None
    """Checkpoint that teaches: folder, hub id, `name@revision`, named source or `${step}`. Of any size, with
    the student's vocabulary."""
    alpha: float = Field(default=0.3, ge=0)
    """Weight of the text's own tokens (cross-entropy) while the teacher teaches."""
    beta: float = Field(default=0.7, ge=0)
    """Weight of the divergence from the teacher; 0 never reads it."""
    divergence: Literal["forward-kl", "reverse-kl", "symmetric-kl", "jensen-shannon"] = "forward-kl"
    """`forward-kl`, KL(teacher || student); `reverse-kl`; `symmetric-kl`, both weighted; `jensen-shannon`."""
    mixing: float = Field(default=0.5, gt=0, lt=1)
    """Teacher's share in `symmetric-kl` (of forward KL) and in the mixture of `jensen-shannon`."""
    temperature: float = Field(default=1.0, gt=0)
    """T, by which logits are divided in the divergence; above 1 the unlikely tokens count more."""
    teacher_temperature: float | None = Field(default=None, gt=0)
    """Another temperature for the teacher, as in SALT, whose student has none; below 1 it sharpens."""
    scale_by_temperature: bool = True
    """Multiply the divergence by T^2, which keeps the size of its gradient."""
    top_k: int | None = Field(default=None, ge=1)
    """Use the teacher's k likeliest tokens only; all others count as one. All of them by default."""
    until: float = Field(default=1.0, gt=0, le=1)
    """Share of the budget after which the teacher is dismissed and plain training goes on."""
    schedule: Literal["constant", "linear"] = "constant"
    """Until then the weights stay (`constant`), or go linearly over to plain training (`linear`)."""
    cache: Literal["none", "float32", "float16", "bfloat16"] = "none"
    """Keep the top k of each block on disk in this precision, for later passes and runs. Of use where
    the same blocks come again: masked text is masked anew each time."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.alpha == 0 and self.beta == 0:
            raise ValueError("alpha and beta are both 0, so nothing is learned")
        if self.cache != "none" and self.top_k is None:
            raise ValueError("a cache needs top_k, a whole distribution for each token is too large to keep")
        return self


class Distilled(Objective):
    """An objective with a frozen teacher of the same kind and vocabulary, mixed into the plain one.

        L = a CE(text) + b T^2 D(teacher, student)

    at every place that the plain objective asks for, summed; a and b are `alpha` and `beta` until the teacher
    is dismissed and 1 and 0 from then on, with a straight line between them under `schedule: linear`.

    Without a teacher it is the plain objective; a run refuses to begin without one.

    Args:
        settings: Options of the objective.
        tokenizer: Tokenizer of the student.
        teacher: Frozen model.
        teacher_tokenizer: Its tokenizer, to make sure that both read the same tokens.

    Raises:
        UserError: The vocabularies differ.
    """

    settings: Any
    parts: ClassVar[tuple[str, ...]] = ("teacher", "teacher_tokenizer")
    asked = {"causal": "distillation", "masked": "masked-distillation", "seq2seq": "span-distillation"}

    def __init__(
        self,
        settings: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        teacher: PreTrainedModel | None = None,
        teacher_tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        super().__init__(settings, tokenizer)
        self.tutor, self._left = teacher, 1.0
        self.voice: Voice | None = None
        if teacher is not None:
            from warmstart.training.identity import weights_sample

            self.voice = self.speaker(teacher, teacher_tokenizer)
            self.fingerprint = weights_sample(teacher)
        self.at(0.0)

    def speaker(self, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Voice:
        """Who says what the teacher expects; `tokenizer` is the teacher's."""
        from warmstart.objectives._voice import Voice, same_vocabulary

        if tokenizer is not None:
            same_vocabulary(self.tokenizer, tokenizer)
        return Voice(teacher, self.settings)

    def shape(self, tokens: int) -> BatchShape:
        """The teacher reads what the student reads and predicts where it predicts."""
        plain = super().shape(tokens)
        if self.tutor is None or not self.settings.beta:
            return plain
        return plain._replace(teacher=plain.inputs, taught=plain.predicted, teacher_targets=plain.targets)

    def at(self, progress: float) -> None:
        """Set the teacher's part in the step at this share of the budget."""
        until = self.settings.until
        if self.settings.schedule == "linear":
            self._left = max(0.0, 1 - progress / until)
        else:
            self._left = 1.0 if progress < until or until == 1 else 0.0
        self.teaching = bool(self._left and self.settings.beta)

    def weights(self) -> tuple[float, float]:
        """a and b T^2 in the step at hand."""
        options, left = self.settings, self._left
        alpha = options.alpha if left == 1 else 1 - (1 - options.alpha) * left
        scale = options.temperature**2 if options.scale_by_temperature else 1.0
        return float(alpha), float(options.beta * left * scale)

    def prepare(self, model: nn.Module, device: torch.device) -> None:
        """Freeze the teacher and move it to `device`.

        Raises:
            UserError: There is none, it is the student itself, or it lacks rows of the vocabulary.
        """
        if self.voice is None:
            raise UserError(
                "there is nobody to learn from", fix="name a teacher: objective: {name: …, teacher: …}"
            )
        if self.tutor is model:
            raise UserError("a model cannot be its own teacher", fix="load the teacher separately")
        self.voice.prepare(len(self.tokenizer), device)

    def finish(self) -> None:
        """Write down what the teacher said."""
        if self.voice is not None:
            self.voice.flush()

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], companions: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sum over the places asked for, and their number."""
        if self.voice is not None and self.teaching:
            return self._mixed(model, batch)
        total, count = super().loss(model, batch, companions)
        alpha, _ = self.weights()
        return total if alpha == 1 or self.voice is None else alpha * total, count

    def places(self, batch: dict[str, Tensor]) -> Tensor:
        """Positions with a target, (N,): row times length plus place."""
        return (self.targets(batch["labels"]).reshape(-1) != -100).nonzero()[:, 0]

    def _mixed(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The student's logits are made once for both parts of the loss."""
        import torch
        from torch.nn import functional as F

        from warmstart.evaluation.head import head_inputs, head_logits
        from warmstart.objectives._divergence import Top, divergence
        from warmstart.objectives._head_loss import head_loss

        assert self.voice is not None and self.tutor is not None
        options, (alpha, weight) = self.settings, self.weights()
        goal = self.targets(batch["labels"])
        where, rows = self.places(batch), self.voice.common(model)
        theirs, said = self.voice.says(batch, self.inputs(self.tutor, batch), goal, rows)
        head, states = head_inputs(model, self.inputs(model, batch), where)

        def mixed(logits: Tensor, token: Tensor, *rest: Tensor) -> Tensor:
            if theirs is None:
                goals: Tensor | Top = Top(rest[0], rest[1], rest[2] if len(rest) > 2 else None)
            else:
                with torch.no_grad():
                    goals = head_logits(theirs, rest[0])[:, :rows]
            apart = divergence(
                logits[:, :rows],
                goals,
                options.divergence,
                temperature=options.temperature,
                teacher_temperature=self.voice.temperature,  # type: ignore[union-attr]
                mixing=options.mixing,
            )
            total = weight * apart.sum()
            return total + alpha * F.cross_entropy(logits, token, reduction="sum") if alpha else total

        total = head_loss(head, states, mixed, [goal.reshape(-1)[where], *said])
        return total, total.new_tensor(float(len(where)))

    def fill(self, model: nn.Module, blocks: Blocks, *, rows: int = 8) -> int:
        """Let the teacher read all blocks now, into its cache; returns how many were new.

        Numbers differ in the last bits from those of a run with other `rows`, where the arithmetic depends on
        the size of a batch.

        Args:
            model: The student, on the device where the teacher is to work.
            blocks: Packed text.
            rows: Blocks per forward pass.

        Raises:
            UserError: No cache is set, or masks are drawn anew in each step.
        """
        if self.settings.cache == "none" or self.task != "causal":
            why = "set cache and top_k" if self.task == "causal" else "text is masked anew in each step"
            raise UserError(f"there is nothing of a teacher to keep: {why}")
        device = next(model.parameters()).device
        self.prepare(model, device)
        assert self.voice is not None and self.tutor is not None
        common, before = self.voice.common(model), self.voice.learned
        for start in range(0, len(blocks), rows):
            ids = np.stack([np.asarray(blocks[i]) for i in range(start, min(start + rows, len(blocks)))])
            batch = self.collate(ids.astype(np.int64), np.random.default_rng(0))
            batch = {name: value.to(device) for name, value in batch.items()}
            self.voice.says(batch, self.inputs(self.tutor, batch), self.targets(batch["labels"]), common)
        self.finish()
        return self.voice.learned - before
