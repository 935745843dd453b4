"""What every learning-rate schedule and every optimizer must do."""

from __future__ import annotations

import math
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any

from warmstart.foundation.contracts import Suite
from warmstart.foundation.registry import Entry
from warmstart.training.optimizer import OptimizerContext, OptimizerMaker, optimizers
from warmstart.training.schedule import Schedule, schedules

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

schedule_checks = Suite("schedule", schedules)
optimizer_checks = Suite("optimizer", optimizers)
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


_DECAY = 0.1


@optimizer_checks.check()
def goes_downhill(entry: Entry[OptimizerMaker]) -> None:
    """Sixty steps on a bowl bring every parameter a quarter of the way to its lowest point, or farther."""
    import torch

    named = _parameters()
    for name, parameter in named.items():
        parameter.data = torch.ones_like(parameter) * (1 + 0.1 * len(name))
    optimizer = _optimizer(entry, named, learning_rate=0.05)
    before = {name: float(p.detach().norm()) for name, p in named.items()}
    for _ in range(60):
        for parameter in named.values():
            parameter.grad = parameter.detach().clone()
        optimizer.step()
    for name, parameter in named.items():
        left = float(parameter.detach().norm()) / before[name]
        assert left < 0.75, f"{left:.0%} of {name} are left"


@optimizer_checks.check()
def takes_the_rate_of_the_moment(entry: Entry[OptimizerMaker]) -> None:
    """A first step is as long as the rate that its group has then says, and at rate 0 nothing moves.

    A group keeps its `lr_multiplier`, by which the loop makes its rate.
    """
    moved = []
    for rate, multiplier in ((0.0, 1.0), (0.01, 1.0), (0.01, 2.0)):
        named = _parameters()
        before = _copies(named)
        optimizer = _optimizer(entry, named, learning_rate=0.5, decay=0.0, multiplier=multiplier)
        _steps(optimizer, named, 1, rate=rate)
        moved.append({name: p.detach() - before[name] for name, p in named.items()})
    still, short, long = moved
    assert not any(step.any() for step in still.values()), "something moved at rate 0"
    for name in short:
        assert short[name].any() and (long[name] - 2 * short[name]).abs().max() < 1e-5, f"the step of {name}"


@optimizer_checks.check()
def decays_like_adamw(entry: Entry[OptimizerMaker]) -> None:
    """Without a gradient's pull, weights shrink by rate times decay in each step, and only in their group."""
    import torch

    named = _parameters()
    before = _copies(named)
    _steps(_optimizer(entry, named), named, 3, size=0.0, rate=0.5)
    for name, parameter in named.items():
        share = (1 - 0.5 * _DECAY) ** 3 if name.startswith("layers.") else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * share, msg=f"decay of {name}")


@optimizer_checks.check()
def leaves_what_has_no_gradient(entry: Entry[OptimizerMaker]) -> None:
    """A parameter that rests keeps its value, and one that has never learnt takes no memory."""
    named = _parameters()
    optimizer = _optimizer(entry, named)
    idle = ("layers.0.wide", "rows")
    for resting in (idle, (), idle):
        before = _copies(named)
        fresh = [name for name in resting if not optimizer.state]
        _steps(optimizer, named, 2, resting=resting)
        for name, parameter in named.items():
            assert bool((parameter.detach() != before[name]).any()) == (name not in resting), name
        for name in fresh:
            assert not optimizer.state.get(named[name]), f"{name} has a state"


@optimizer_checks.check()
def is_the_same_again(entry: Entry[OptimizerMaker]) -> None:
    """Equal gradients give bitwise equal parameters, and random numbers of others are not used up."""
    import torch

    ends = []
    for _ in range(2):
        named = _parameters()
        before = torch.get_rng_state()
        _steps(_optimizer(entry, named), named, 5)
        assert torch.equal(before, torch.get_rng_state()), "the global generator was used"
        ends.append(named)
    assert all(torch.equal(p, ends[1][name]) for name, p in ends[0].items()), "two runs differ"


@optimizer_checks.check()
def resumes_exactly(entry: Entry[OptimizerMaker]) -> None:
    """Saved and loaded after each number of steps, it ends with bitwise the same parameters."""
    import torch

    from warmstart.training.state import load_optimizer, optimizer_tensors

    total, whole = 8, _parameters()
    _steps(_optimizer(entry, whole), whole, total)
    for stop in range(1, total):
        first, second = _parameters(), _parameters()
        optimizer = _optimizer(entry, first)
        _steps(optimizer, first, stop)
        kept = {key: value.clone() for key, value in optimizer_tensors(optimizer, first).items()}
        for name, parameter in second.items():
            parameter.data.copy_(first[name].detach())
        resumed = _optimizer(entry, second)
        load_optimizer(resumed, second, kept)
        _steps(resumed, second, total - stop, begin=stop)
        for name, parameter in whole.items():
            assert torch.equal(parameter, second[name]), f"{name} differs when resumed after {stop} steps"


@optimizer_checks.check(tags=("lean",))
def keeps_less_than_adamw(entry: Entry[OptimizerMaker]) -> None:
    """Its state of a layer's matrix, as it is saved, is smaller than AdamW's two moments."""
    from warmstart.training.state import optimizer_tensors

    named = _parameters()
    optimizer = _optimizer(entry, named)
    _steps(optimizer, named, 2)
    kept = optimizer_tensors(optimizer, named)
    for name, parameter in named.items():
        if name.startswith("layers."):
            size = sum(v.numel() for key, v in kept.items() if key.split("/", 1)[1] == name)
            assert 0 < size < 2 * parameter.numel(), f"{size} values for the {parameter.numel()} of {name}"


def _parameters() -> dict[str, nn.Parameter]:
    """Wide, tall and square matrices of a layer, a table of rows and a vector."""
    import torch
    from torch import nn

    shapes = {"wide": (8, 12), "tall": (12, 8), "square": (8, 8)}
    every = {f"layers.0.{name}": shape for name, shape in shapes.items()} | {"rows": (5, 4), "bias": (6,)}
    drawn = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape, generator=drawn)) for name, shape in every.items()}


def _copies(named: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in named.items()}


def _optimizer(
    entry: Entry[OptimizerMaker],
    named: dict[str, nn.Parameter],
    *,
    learning_rate: float = 0.01,
    decay: float = _DECAY,
    multiplier: float = 1.0,
) -> Optimizer:
    """The method with its defaults, but renewing and restarting often where it does so at all."""
    often: dict[str, Any] = {"update_proj_gap": 3, "every": 3, "recovery": 1}
    settings = entry.settings.parse({k: v for k, v in often.items() if k in entry.settings.model_fields})
    matrices = frozenset(name for name in named if name.startswith("layers."))
    kinds = ((True, decay), (False, 0.0))
    context = OptimizerContext(
        groups=[
            {
                "params": [p for n, p in named.items() if (n in matrices) == inside],
                "weight_decay": share,
                "lr_multiplier": multiplier,
            }
            for inside, share in kinds
        ],
        names={parameter: name for name, parameter in named.items()},
        matrices=matrices,
        learning_rate=learning_rate,
    )
    return entry.target(context, settings)


def _steps(
    optimizer: Optimizer,
    named: dict[str, nn.Parameter],
    count: int,
    *,
    begin: int = 0,
    size: float = 1.0,
    rate: float = 0.01,
    resting: tuple[str, ...] = (),
) -> None:
    """Steps `begin` and on, with gradients that depend on the number of the step alone."""
    import torch

    for step in range(begin, begin + count):
        drawn = torch.Generator().manual_seed(step)
        for name, parameter in named.items():
            grad = torch.randn(parameter.shape, generator=drawn) * size * math.sqrt(1 + step)
            parameter.grad = None if name in resting else grad
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_multiplier"]
        optimizer.step()
