"""Batch size and learning rate over the tokens of a run, as MT-NLG 530B raised and lowered them.

Smith et al., "Using DeepSpeed and Megatron to Train Megatron-Turing NLG 530B, A Large-Scale Generative
Language Model" (arXiv 2201.11990): batch 32, then 32 more again and again over the first 12B tokens, up to
1920; rate 5e-5 after a linear warm-up over 1B tokens, half a cosine to a tenth over 340B.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings


class RampSettings(Settings):
    """A batch that grows, and a learning rate by tokens."""

    start: int | None = Field(default=None, ge=1)
    """Sequences per step at the beginning; the whole batch from the first step when not given."""
    increment: int | None = Field(default=None, ge=1)
    """Sequences by which the batch grows at a time; as many as `start` when not given."""
    tokens: float = Field(default=0, ge=0)
    """Tokens over which it grows."""
    learning_rate: float = Field(default=3e-4, gt=0)
    """Highest learning rate."""
    warmup_tokens: float = Field(default=0, ge=0)
    """Tokens with a rising rate."""
    decay_tokens: float | None = Field(default=None, gt=0)
    """Tokens, from the first one, after which the rate is lowest; those of the run when not given."""
    min_lr_ratio: float = Field(default=0.1, ge=0, le=1)
    """Lowest rate as a share of the highest."""


@dataclass(frozen=True)
class Level:
    """Steps of one batch size.

    Attributes:
        batch: Sequences per step.
        first_step: Steps before.
        steps: Steps of this size.
        first_token: Tokens before.
    """

    batch: int
    first_step: int
    steps: int
    first_token: int


def levels(settings: RampSettings, *, batch: int, sequence_length: int, tokens: float) -> list[Level]:
    """The batch sizes of a run of `tokens` tokens, in order, as Megatron's `--rampup-batch-size` counts them.

    With `k = (batch - start) / increment` growth steps over `R` sequences, the batch after `c` sequences is
    `start + increment * floor(c k / R)`, and `batch` from `R` on. The last step may pass `tokens`.

    Raises:
        UserError: `increment` does not lead from `start` to `batch`.
    """
    ramp, end = int(settings.tokens // sequence_length), -(-int(tokens) // sequence_length)
    start = batch if settings.start is None or not ramp else settings.start
    increment = settings.increment or start
    if start > batch or (batch - start) % increment:
        raise UserError(
            f"steps of {increment} do not lead from {start} to {batch} sequences",
            where="ramp",
            fix="batch_size - ramp.start must be a multiple of ramp.increment",
        )
    count = (batch - start) // increment
    found: list[Level] = []
    consumed = step = 0
    for index in range(count + 1):
        size = start + index * increment
        missing = end - consumed
        if index < count:  # whole numbers throughout: the limit is (index + 1) * ramp / count
            missing = min(missing, -(-((index + 1) * ramp - consumed * count) // count))
        steps = max(0, -(-missing // size))
        if steps:
            found.append(Level(size, step, steps, consumed * sequence_length))
            consumed, step = consumed + steps * size, step + steps
    return found


def learning_rate(settings: RampSettings, token: float, *, tokens: float) -> float:
    """Rate after `token` tokens of a run of `tokens`: linear warm-up, half a cosine, then the lowest."""
    from warmstart.training.schedule import schedules

    whole = settings.decay_tokens or tokens
    factor = schedules.get("cosine").target(
        min(1.0, token / whole), warmup=settings.warmup_tokens / whole, decay=0, floor=settings.min_lr_ratio
    )
    return settings.learning_rate * factor


def rows(
    settings: RampSettings, *, batch: int, sequence_length: int, tokens: float, most: int = 8
) -> Iterator[dict[str, float]]:
    """At most `most` points of the run with step, token, batch and rate, for a table or a plot."""
    sizes = levels(settings, batch=batch, sequence_length=sequence_length, tokens=tokens)
    marks = {0.0, settings.warmup_tokens, settings.tokens, settings.decay_tokens or tokens, float(tokens)}
    marks |= {tokens * i / most for i in range(1, most)}
    for token in sorted(mark for mark in marks if mark <= tokens):
        level = [level for level in sizes if level.first_token <= token][-1]
        inside = (token - level.first_token) / (level.batch * sequence_length)
        yield {
            "tokens": token,
            "step": level.first_step + min(level.steps, int(inside)),
            "batch_size": level.batch,
            "learning_rate": learning_rate(settings, token, tokens=tokens),
        }
