"""The running loss: what is logged, what a measured point gets, and what a continued run goes on with."""

from __future__ import annotations

import math

import torch

from warmstart.training.losses import LossSums, mean


def step(nll: float, targets: float) -> torch.Tensor:
    return torch.tensor([nll, targets], dtype=torch.float64)


def test_lines_and_windows_end_apart_and_means_weigh_by_targets() -> None:
    sums = LossSums((0.0, 0.0), (0.0, 0.0))
    assert math.isnan(sums.shown()) and mean(sums.window) is None
    sums.add(step(6.0, 2.0))
    sums.add(step(2.0, 6.0))
    assert sums.logged == sums.window == (8.0, 8.0) and sums.shown() == 1.0
    sums.end_line()
    assert sums.logged == (0.0, 0.0) and sums.window == (8.0, 8.0)
    assert sums.shown() == 1.0  # of the line before
    sums.add(step(9.0, 3.0))
    assert sums.shown() == 3.0 and mean(sums.window) == 17 / 11
    sums.end_window()
    assert sums.logged == (9.0, 3.0) and mean(sums.window) is None


def test_a_continued_run_goes_on_with_the_same_sums() -> None:
    whole = LossSums((0.0, 0.0), (0.0, 0.0))
    parts = [step(0.1 * k, 7.0) for k in range(6)]
    for part in parts[:3]:
        whole.add(part)
    again = LossSums(whole.logged, whole.window)
    for part in parts[3:]:
        whole.add(part)
        again.add(part)
    assert again.logged == whole.logged and again.window == whole.window
