"""The training loss between two lines of the log and between two measured points."""

from __future__ import annotations

import math

import torch

Sums = tuple[float, float]
"""Summed loss in nats, and number of targets."""


class LossSums:
    """Running sums of loss and targets, held where the steps are computed, so that no step waits for them.

    Args:
        logged: Sums since the last line of the log.
        window: Sums since the last measured point.
    """

    def __init__(self, logged: Sums, window: Sums) -> None:
        self._logged, self._window = (torch.tensor(sums, dtype=torch.float64) for sums in (logged, window))
        self._last = math.nan

    def add(self, sums: torch.Tensor) -> None:
        """Count one step: its summed loss and its targets, `(2,)`."""
        self._logged = self._logged.to(sums) + sums
        self._window = self._window.to(sums) + sums

    @property
    def logged(self) -> Sums:
        """Sums since the last line of the log."""
        return _pair(self._logged)

    @property
    def window(self) -> Sums:
        """Sums since the last measured point."""
        return _pair(self._window)

    def shown(self) -> float:
        """Mean loss since the last line of the log, or that of the line before; NaN before the first step."""
        self._last = mean(self.logged) or self._last
        return self._last

    def end_line(self) -> None:
        """Begin a new line of the log."""
        self._last = mean(self.logged) or self._last
        self._logged = torch.zeros_like(self._logged)

    def end_window(self) -> None:
        """Begin a new window: a point was measured."""
        self._window = torch.zeros_like(self._window)


def mean(sums: Sums) -> float | None:
    """Mean loss per target; None where there was none."""
    nll, targets = sums
    return nll / targets if targets else None


def _pair(sums: torch.Tensor) -> Sums:
    first, second = sums.tolist()
    return first, second
