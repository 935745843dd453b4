"""The learning rate over a run: a registry of pure functions of how far the run has come."""

from __future__ import annotations

from typing import Protocol

from warmstart.foundation.registry import Registry


class Schedule(Protocol):
    """A schedule as a function: the rate as a share of its peak."""

    def __call__(self, progress: float, *, warmup: float, decay: float, floor: float) -> float:
        """Factor on the peak rate.

        Args:
            progress: Share of the budget (tokens, steps or seconds) at which a step is taken, in [0, 1]: the
                middle of the step, so that the first step of a warm-up and the last step of a decay are not
                wasted on rate 0.
            warmup: Share of the budget with a rising rate.
            decay: Share of the budget, at its end, with a falling rate (warmup-stable-decay only).
            floor: Final factor.
        """
        ...


schedules: Registry[Schedule] = Registry("schedule", "warmstart.training.schedules")


def rise(progress: float, warmup: float) -> float:
    """Linear warm-up: 0 at the start, 1 from `warmup` on."""
    return min(1.0, progress / warmup) if warmup > 0 else 1.0


def after(progress: float, start: float) -> float:
    """How far `progress` has come from `start` to 1, in [0, 1]."""
    if start >= 1:
        return 0.0
    return min(1.0, max(0.0, (progress - start) / (1 - start)))
