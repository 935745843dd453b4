"""Step type `train-further`: training that counts what the making of its source has cost already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from warmstart.foundation.errors import UserError
from warmstart.recipes.operations import operations
from warmstart.recipes.operations.train import TrainStep, train_step
from warmstart.recipes.runner import Runner

if TYPE_CHECKING:
    from warmstart.evaluation.curves import Curve


class TrainFurtherStep(TrainStep):
    """Continue training a checkpoint that training made, and let its curve begin at that training's cost.

    The budget is that of the further training alone.
    """


@operations.register("train-further", settings=TrainFurtherStep, tags=("trains",))
def train_further_step(settings: TrainFurtherStep, folder: Path, runner: Runner) -> None:
    """As `train`; steps, tokens, seconds and FLOPs of `training.json` go on from those of the source.

    The source is the artifact of a step that trains, such as `grow-learned`, so that a comparison counts what
    was spent before the first step.
    """
    from warmstart.checkpoint import resolve
    from warmstart.evaluation.curves import Curve

    made = resolve(settings.source).path / "training.json"
    if not made.is_file():
        raise UserError(
            "the source has no curve to count on from",
            where=settings.source,
            fix="use a step `train`, or the output of a step that trains",
        )
    spent = Curve.model_validate_json(made.read_text(encoding="utf-8"))
    train_step(settings, folder, runner)
    file = folder / "output" / "training.json"
    own = Curve.model_validate_json(file.read_text(encoding="utf-8"))
    file.write_text(counted_on(own, spent).model_dump_json(), encoding="utf-8")


def counted_on(curve: Curve, spent: Curve) -> Curve:
    """The curve moved to where another one ends."""
    last = spent.points[-1]
    points = [
        point.model_copy(
            update={
                "step": point.step + last.step,
                "tokens": point.tokens + last.tokens,
                "seconds": point.seconds + last.seconds,
                "flops": point.flops + last.flops,
            }
        )
        for point in curve.points
    ]
    return curve.model_copy(update={"points": points})
