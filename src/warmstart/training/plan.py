"""When a run ends, measures and saves, and how far it has come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from warmstart.training.settings import TrainSettings


@dataclass(frozen=True)
class Plan:
    """The budget of a run in steps, or in seconds.

    Attributes:
        settings: Options of the run.
        tokens_per_step: Tokens of one optimizer step over all processes.
        total_steps: Steps of the run; None when the budget is seconds.
    """

    settings: TrainSettings
    tokens_per_step: int
    total_steps: int | None

    @classmethod
    def of(cls, settings: TrainSettings, *, tokens_per_step: int, num_blocks: int) -> Plan:
        """The plan for `settings`; a missing budget raises `UserError`."""
        steps: int | None = None
        if settings.max_steps is not None:
            steps = settings.max_steps
        elif settings.max_tokens is not None:
            steps = math.ceil(settings.max_tokens / tokens_per_step)
        elif settings.num_train_epochs is not None:
            steps = math.ceil(settings.num_train_epochs * num_blocks * settings.block_size / tokens_per_step)
        elif settings.max_seconds is None:
            raise UserError(
                "training has no budget", fix="give max_tokens, max_steps, max_seconds or num_train_epochs"
            )
        return cls(settings, tokens_per_step, None if steps is None else max(1, steps))

    def progress(self, step: float, seconds: float) -> float:
        """Share of the budget that `step` steps and `seconds` of training have used, in [0, 1]."""
        if self.total_steps is not None:
            return min(1.0, step / self.total_steps)
        assert self.settings.max_seconds is not None
        return min(1.0, seconds / self.settings.max_seconds)

    def finished(self, step: int, seconds: float) -> bool:
        """Whether the budget is used up."""
        return self.progress(step, seconds) >= 1

    def learning_rate(self, step: int, seconds: float) -> float:
        """Rate of the step that follows `step` finished ones, taken at the middle of that step."""
        from warmstart.training.schedule import schedules

        options = self.settings
        factor = schedules.get(options.lr_scheduler_type).target(
            self.progress(step + 0.5, seconds),
            warmup=options.warmup_ratio,
            decay=options.decay_ratio,
            floor=options.min_lr_ratio,
        )
        return options.learning_rate * factor

    def measure_now(self, step: int, seconds: float, before: float) -> bool:
        """Whether the model is measured after `step` steps.

        Args:
            step: Steps taken.
            seconds: Training seconds used.
            before: Training seconds when the last step began.
        """
        options = self.settings
        if step == 0 or self.finished(step, seconds):
            return True
        if options.eval_steps and step % options.eval_steps == 0:
            return True
        reached, previous = self.progress(step, seconds), self.progress(step - 1, before)
        tokens = step * self.tokens_per_step
        return any(
            previous + 1e-9 < point <= reached + 1e-9
            if point <= 1
            else tokens - self.tokens_per_step < point <= tokens
            for point in options.eval_points
        )

    def save_now(self, step: int, idle: float) -> bool:
        """Whether a checkpoint is due after `step` steps, `idle` seconds after the last one."""
        options = self.settings
        if options.save_steps and step % options.save_steps == 0:
            return True
        return options.save_seconds is not None and idle >= options.save_seconds
