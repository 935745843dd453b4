"""Step type `policy-run`: how far a model fell while it learned by rewards, and how short its answers got."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from warmstart.foundation.files import atomic_folder
from warmstart.foundation.settings import Settings
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner


class PolicyRunSettings(Settings):
    """The course of a run of the step `train-policy`."""

    source: str = Field(min_length=1)
    """Checkpoint that a step `train-policy` left: folder, hub id, `name@revision` or `${step}`."""


@operations.register(
    "policy-run",
    settings=PolicyRunSettings,
    title="Balanced Actor Initialization: Stable RLHF Training of Distillation-Based Reasoning Models",
    arxiv="2509.00309",
    tags=("measures",),
)
def policy_run_step(settings: PolicyRunSettings, folder: Path, runner: Runner) -> None:
    """Tell the dip of a run and how short its answers got; the artifact holds `policy-run.json`.

    The numbers are those of "reward hockey stick" and "sequence length collapse": the largest fall of the
    mean reward below its first value, the steps until it is back, and the smallest mean length of answers as
    a share of the first. A checkpoint that was not left by `train-policy` has no course: nothing fell, and
    the lengths are those of the start. What a checkpoint is worth is the step `rollouts`.
    """
    from warmstart.checkpoint import resolve
    from warmstart.evaluation.policy_course import PolicyCourse, course_numbers
    from warmstart.recipes.operations.train_policy import COURSE

    file = resolve(settings.source).path / COURSE
    points = PolicyCourse.model_validate_json(file.read_text("utf-8")).points if file.is_file() else []
    with atomic_folder(folder / "output", replace=True) as output:
        text = course_numbers(points).model_dump_json(indent=1)
        (output / "policy-run.json").write_text(text, encoding="utf-8")
