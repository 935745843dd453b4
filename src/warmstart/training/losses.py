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
        penalty: Summed penalty since the last line of the log, each target's counted once.
        name: Of the penalty; None for a model without one.
    """

    def __init__(self, logged: Sums, window: Sums, penalty: float = 0.0, name: str | None = None) -> None:
        self._logged, self._window = (torch.tensor(sums, dtype=torch.float64) for sums in (logged, window))
        self._penalty, self._name = torch.tensor(penalty, dtype=torch.float64), name
        self._last: dict[str, float] = {"loss": math.nan}

    def add(self, sums: torch.Tensor, penalty: torch.Tensor | None = None) -> None:
        """Count one step: its summed loss and its targets, `(2,)`, and its summed penalty."""
        self._logged = self._logged.to(sums) + sums
        self._window = self._window.to(sums) + sums
        if penalty is not None:
            self._penalty = self._penalty.to(sums) + penalty

    @property
    def logged(self) -> Sums:
        """Sums since the last line of the log."""
        return _pair(self._logged)

    @property
    def window(self) -> Sums:
        """Sums since the last measured point."""
        return _pair(self._window)

    @property
    def penalty(self) -> float:
        """Summed penalty since the last line of the log."""
        return float(self._penalty)

    @property
    def kept(self) -> tuple[Sums, Sums, float]:
        """What a continued run goes on with: sums of the window, of the log's line, and its penalty."""
        return self.window, self.logged, self.penalty

    def line(self) -> dict[str, float]:
        """Mean loss and, under its name, mean penalty since the last line of the log."""
        loss, beside = mean(self.logged), mean((self.penalty, self.logged[1]))
        named = {"loss": loss} if self._name is None else {"loss": loss, self._name: beside}
        return {name: value for name, value in named.items() if value is not None}

    def shown(self) -> float:
        """Mean loss since the last line of the log, or that of the line before; NaN before the first step."""
        self._last |= self.line()
        return self._last["loss"]

    def text(self) -> str:
        """What `shown` gives and the penalty beside it, for people."""
        self.shown()
        return "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in self._last.items())

    def end_line(self) -> None:
        """Begin a new line of the log."""
        self._last |= self.line()
        self._logged, self._penalty = torch.zeros_like(self._logged), torch.zeros_like(self._penalty)

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
