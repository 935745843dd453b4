"""The course of a model that learns from what its own answers earn: how far it fell before it rose."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from warmstart.evaluation.rollouts import Rollouts


class CoursePoint(BaseModel):
    """What the model's answers were worth at one moment of training."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    step: int
    """Optimizer steps taken."""
    tokens: int
    """Training tokens, as budgets count them."""
    found: Rollouts
    """What was measured; `kl` from the model at the start."""


class PolicyCourse(BaseModel):
    """`policy.json`: all measured moments of one run, the first before the first step."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    largest_reward: float
    """What the best answer earns."""
    points: list[CoursePoint]
    """In the order of training."""


class CourseNumbers(BaseModel):
    """What happened on the way, in a few numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    dip: float
    """By how much the mean reward fell below its first value at most; 0 if it never did."""
    steps_to_regain: int
    """Steps at which the reward was first back at its first value, behind its lowest point; 0 without a dip,
    and those of the whole run where it never came back."""
    regained: int
    """1 where it came back, or never fell; else 0."""
    shortest_length: float
    """Smallest mean length of answers on the way, as a share of the first."""
    final_length: float
    """Mean length at the end, as a share of the first."""
    kl: float
    """Nats by which an answer's distribution at the end is apart from that of the start."""


def course_numbers(points: Sequence[CoursePoint]) -> CourseNumbers:
    """What happened between the first point and the last; without points, what happens where nothing does."""
    if not points:
        return CourseNumbers(
            dip=0.0, steps_to_regain=0, regained=1, shortest_length=1.0, final_length=1.0, kl=0.0
        )
    first, last = points[0].found, points[-1]
    lowest = min(range(len(points)), key=lambda i: points[i].found.reward)
    dip = first.reward - points[lowest].found.reward
    back = [point.step for point in points[lowest:] if point.found.reward >= first.reward]
    lengths = [point.found.length / first.length for point in points]
    return CourseNumbers(
        dip=dip,
        steps_to_regain=0 if dip == 0 else back[0] if back else last.step,
        regained=int(dip == 0 or bool(back)),
        shortest_length=min(lengths),
        final_length=lengths[-1],
        kl=last.found.kl,
    )
