"""One arm of a comparison: its start, its tuned learning rate, its runs and what its models are worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.evaluation.curves import Curve
from warmstart.evaluation.results import Arm, Interval, Measured
from warmstart.foundation.errors import UserError
from warmstart.foundation.progress import note
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.schema import parse_step

if TYPE_CHECKING:
    from warmstart.recipes.compare import CompareSettings
    from warmstart.recipes.runner import Runner

TUNING_SEED = 1000  # never among the reported seeds


class ArmSettings(Settings):
    """One way to get the model."""

    start: dict[str, Any]
    """Typed step that makes the checkpoint to train from, such as `{type: transplant, …}`."""
    describe: str = ""
    """One line for people."""
    learning_rates: list[float] = []
    """Own grid of learning rates; the comparison's grid when empty."""
    step: str = "train"
    """Type of the step that trains this arm: `train`, or another that takes a source, a corpus and training
    settings and leaves `training.json`, such as `train-rows`."""
    train: dict[str, Any] = {}
    """Overrides of the shared training settings, and settings of this arm's own `step`."""


def check_arm(name: str, settings: CompareSettings) -> None:
    """Refuse an arm whose start, training or measures would only fail after hours.

    Raises:
        UserError: A setting that the step does not have, or a step that cannot take part.
    """
    where = f"arm {name}"
    arm = settings.arms[name]
    parse_step(arm.start, where=where)
    entry = operations.get(arm.step, where=where)
    if "trains" not in entry.tags:
        able = sorted(e.name for e in operations if "trains" in e.tags)
        raise UserError(
            f"a {arm.step!r} step does not train", where=where, fix=f"use one of {', '.join(able)}"
        )
    entry.settings.parse({**_training(settings, arm), "source": "start"}, where=where)


def start_arm(arm: ArmSettings, seed: int, runner: Runner, name: str) -> Path:
    """The checkpoint that an arm trains from, with the seed passed on to the surgery where it takes one."""
    kind, parsed = parse_step(arm.start, where=f"arm {name}")
    values = parsed.model_dump(mode="json", exclude_unset=True)
    if "seed" in type(parsed).model_fields and "seed" not in arm.start:
        values["seed"] = seed
    return runner.step(kind, values, name=f"{name}, seed {seed}")


def train_arm(name: str, settings: CompareSettings, runner: Runner) -> Arm:
    """Tune an arm's rate, train it with every seed, and measure its models."""
    from warmstart.evaluation import interval

    arm = settings.arms[name]
    grid = arm.learning_rates or settings.learning_rates or [_rate(settings, arm)]
    tried = _tune(name, arm, grid, settings, runner)
    rate = min(tried, key=lambda r: tried[r]) if tried else grid[0]
    starts, ends, curves = [], [], []
    for seed in settings.seeds:
        starts.append(start_arm(arm, seed, runner, name))
        values = _training(settings, arm) | {"learning_rate": rate, "seed": seed, "eval_split": "test"}
        ends.append(runner.step(arm.step, values | {"source": str(starts[-1])}, name=f"{name}, seed {seed}"))
        curves.append(read_curve(ends[-1]))
        note(f"  {name}, seed {seed}: {curves[-1].final:.3f} {settings.unit}")
    return Arm(
        name=name,
        description=arm.describe,
        learning_rate=rate,
        learning_rates={f"{key:g}": value for key, value in sorted(tried.items())},
        curves=curves,
        final_bpb=interval([curve.final for curve in curves]),
        savings=[],
        checkpoint=str(ends[0]),
        measures=_measure(name, settings.measures, starts, ends, runner),
        extra=_extra(ends[0]),
    )


def _training(settings: CompareSettings, arm: ArmSettings) -> dict[str, Any]:
    return {
        **settings.train.model_dump(mode="json", exclude_unset=True),
        **arm.train,
        "corpus": settings.corpus.model_dump(mode="json", exclude_unset=True),
        "eval_max_bytes": settings.eval_max_bytes,
    }


def _rate(settings: CompareSettings, arm: ArmSettings) -> float:
    return float(arm.train.get("learning_rate", settings.train.learning_rate))


def _tune(
    name: str, arm: ArmSettings, grid: Sequence[float], settings: CompareSettings, runner: Runner
) -> dict[float, float]:
    """Final `valid` loss of a short run per learning rate; empty when there is nothing to choose."""
    if len(grid) < 2:
        return {}
    start = start_arm(arm, TUNING_SEED, runner, name)
    shared = _training(settings, arm)
    budget = {
        key: max(1, int(shared[key] * settings.tune_fraction))
        for key in ("max_tokens", "max_steps")
        if shared.get(key) is not None
    }
    fixed = {"seed": TUNING_SEED, "eval_split": "valid", "source": str(start), "eval_points": []}
    if "keep" in operations.get(arm.step).settings.model_fields:
        fixed["keep"] = False
    losses: dict[float, float] = {}

    def measure(rate: float) -> None:
        values = shared | budget | fixed | {"learning_rate": rate}
        losses[rate] = read_curve(runner.step(arm.step, values, name=f"{name}, rate {rate:g}")).final

    for rate in sorted(grid):
        measure(rate)
    for _ in range(settings.extend):
        best = min(losses, key=lambda r: losses[r])
        if best == max(losses):
            measure(best * 2)
        elif best == min(losses):
            measure(best / 2)
        else:
            break
    return losses


def read_curve(output: Path) -> Curve:
    """The curve that a step which trains left in its artifact."""
    return Curve.model_validate_json((output / "training.json").read_text())


def read_numbers(output: Path) -> dict[str, float]:
    """The numbers that a step which measures left in its artifact: those of its one JSON file."""
    (file,) = output.glob("*.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    return {k: v for k, v in found.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def check_measures(measures: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse measures that are no measuring steps or lack a setting.

    Raises:
        UserError: With the name of the measure.
    """
    for label, step in measures.items():
        where = f"measure {label}"
        if "source" in step:
            raise UserError(
                "the source is each arm's own model", where=where, fix="leave `source` out of the measure"
            )
        kind = str(step.get("type"))
        if kind in operations and "measures" not in operations.get(kind).tags:
            able = ", ".join(sorted(e.name for e in operations if "measures" in e.tags))
            raise UserError(f"a {kind!r} step measures nothing", where=where, fix=f"use one of {able}")
        parse_step({**step, "source": "start"}, where=where)


def _measure(
    name: str,
    measures: Mapping[str, Mapping[str, Any]],
    starts: Sequence[Path],
    ends: Sequence[Path],
    runner: Runner,
) -> dict[str, Measured]:
    """`label.number` -> its interval over seeds, of the models before and after training."""
    found: dict[str, Measured] = {}
    for label, step in measures.items():
        plain = {key: value for key, value in step.items() if key != "type"}

        def numbers(path: Path, label: str = label, kind: str = step["type"], plain: Any = plain) -> Any:
            return read_numbers(runner.step(kind, plain | {"source": str(path)}, name=f"{name}: {label}"))

        before, after = [numbers(path) for path in starts], [numbers(path) for path in ends]
        for key in after[0]:
            found[f"{label}.{key}"] = Measured(start=_interval(before, key), final=_interval(after, key))
    return found


def _interval(numbers: Sequence[Mapping[str, float]], key: str) -> Interval:
    from warmstart.evaluation import interval

    return interval([float(found[key]) for found in numbers])


def _extra(output: Path) -> dict[str, Any]:
    from warmstart.checkpoint import resolve

    lineage = resolve(output).lineage
    if lineage is None:
        return {}
    surgery = lineage.parents[0].lineage if lineage.parents else None
    return dict(lineage.measured) | {
        f"start {k}": v for k, v in (surgery.measured if surgery else {}).items()
    }
