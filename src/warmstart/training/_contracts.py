"""What every learning-rate schedule must do."""

from __future__ import annotations

from itertools import pairwise, product

from warmstart.foundation.contracts import Suite
from warmstart.foundation.registry import Entry
from warmstart.training.schedule import Schedule, schedules

schedule_checks = Suite("schedule", schedules)
_SHAPES = [
    {"warmup": warmup, "decay": decay, "floor": floor}
    for warmup, decay, floor in product((0.0, 0.01, 0.1, 1.0), (0.0, 0.2, 1.0), (0.0, 0.1, 1.0))
]
_GRID = [i / 400 for i in range(401)]


@schedule_checks.check()
def stays_between_zero_and_one(entry: Entry[Schedule]) -> None:
    """The factor is in [0, 1] over the whole run, for every warm-up, decay and floor."""
    for shape in _SHAPES:
        for progress in _GRID:
            value = entry.target(progress, **shape)
            assert 0 <= value <= 1 + 1e-12, f"{value} at {progress} with {shape}"


@schedule_checks.check()
def is_continuous(entry: Entry[Schedule]) -> None:
    """No jump: over 4,000 points of the run, neighbouring factors differ by little."""
    fine = [i / 4_000 for i in range(4_001)]
    for shape in _SHAPES:
        steps = [s for s in (shape["warmup"], shape["decay"]) if s > 0]
        steepest = 8 / min([1.0, *steps])  # slope bound of a linear or cosine ramp, with room
        values = [entry.target(progress, **shape) for progress in fine]
        inner = values if shape["decay"] > 0 else values[:-1]  # a decay of no length is a jump by definition
        jump = max(abs(b - a) for a, b in pairwise(inner))
        assert jump <= steepest / 4_000 + 1e-9, f"a jump of {jump} with {shape}"


@schedule_checks.check()
def is_pure(entry: Entry[Schedule]) -> None:
    """The same place gives the same factor, in any order of calls: resuming depends on it."""
    shape = {"warmup": 0.1, "decay": 0.2, "floor": 0.1}
    forth = [entry.target(progress, **shape) for progress in _GRID]
    back = [entry.target(progress, **shape) for progress in reversed(_GRID)]
    assert forth == back[::-1], "the factor depends on earlier calls"


@schedule_checks.check()
def warms_up(entry: Entry[Schedule]) -> None:
    """Starts near zero, never falls during the warm-up and is at its peak at its end."""
    shape = {"warmup": 0.2, "decay": 0.2, "floor": 0.0}
    values = [entry.target(progress, **shape) for progress in _GRID if progress <= 0.2]
    assert values[0] < 0.02, f"starts at {values[0]}"
    assert all(b >= a - 1e-12 for a, b in pairwise(values)), "falls during the warm-up"
    assert values[-1] > 0.99, f"is at {values[-1]} at the end of the warm-up"


@schedule_checks.check(tags=("decays",))
def ends_at_the_floor(entry: Entry[Schedule]) -> None:
    """Never rises after the warm-up and ends at the floor."""
    for floor in (0.0, 0.1, 0.5):
        shape = {"warmup": 0.1, "decay": 0.3, "floor": floor}
        values = [entry.target(progress, **shape) for progress in _GRID if progress >= 0.1]
        assert all(b <= a + 1e-12 for a, b in pairwise(values)), "rises after the warm-up"
        assert abs(values[-1] - floor) < 1e-9, f"ends at {values[-1]}, not at {floor}"
