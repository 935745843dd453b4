"""What a comparison or reproduction writes to `result.json`, and what reports and the catalogue read."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from warmstart.evaluation.curves import Curve

Axis = Literal["tokens", "flops", "seconds"]
Verdict = Literal["reproduced", "partly", "not reproduced", "not run"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Interval(_Record):
    """Mean over seeds with its two-sided 95 % Student-t interval (equal to the mean for one seed)."""

    mean: float
    low: float
    high: float
    per_seed: list[float]


class Saving(_Record):
    """How much of the baseline's cost an arm needs to reach the baseline's final loss."""

    axis: Axis
    """What is counted."""
    reached: bool
    """Whether the arm reached the target loss in every seed."""
    cost: Interval | None
    """Tokens, FLOPs or seconds to the target; None when a seed never reached it."""
    ratio: Interval | None
    """`cost` divided by what the baseline spent, paired by seed; below 1 is a saving."""


class Measured(_Record):
    """A number measured of an arm's models, over seeds."""

    start: Interval
    """Before training."""
    final: Interval
    """After training."""


class Arm(_Record):
    """One way to get the model, trained with every seed."""

    name: str
    description: str
    """One line for people: what was copied, what was initialised how."""
    learning_rate: float
    """The rate chosen from `learning_rates` on a separate seed."""
    learning_rates: dict[str, float]
    """Rate tried -> final bits per byte of the tuning run; empty when the rate was given."""
    curves: list[Curve]
    """One per seed."""
    final_bpb: Interval
    savings: list[Saving]
    """Against the baseline arm, one per axis; empty for the baseline itself."""
    sample: str = ""
    """Text the finished model of the first seed writes."""
    checkpoint: str = ""
    """Folder of the finished model of the first seed, relative to the run folder."""
    measures: dict[str, Measured] = {}
    """`label.number` -> what the comparison's measuring steps found."""
    extra: dict[str, Any] = {}
    """Further measurements: parameters, seconds of the surgery, share of copied rows and the like."""


class Claim(_Record):
    """One checkable sentence of a paper or an issue, with what was measured."""

    text: str
    holds: bool | None
    """None when it could not be decided from the runs."""
    measured: str
    """The numbers behind it, as a phrase."""


class ComparisonResult(_Record):
    """A finished comparison of arms at equal tokens and steps."""

    name: str
    title: str
    sentence: str
    """The outcome in one sentence that a newcomer understands."""
    verdict: Verdict
    claims: list[Claim]
    scale: str
    """smoke, small, full, or the name of the user's own run."""
    date: str
    """ISO date on which the run finished."""
    unit: str = "bits per byte"
    baseline: str
    """Name of the arm that the savings refer to."""
    arms: list[Arm]
    seeds: list[int]
    sample_prompt: str = ""
    sample_before: str = ""
    """What the source model writes for the same prompt."""
    lineage: dict[str, Any] = {}
    """Tree of parents of the resulting checkpoints (see `checkpoint.Lineage`)."""
    settings: dict[str, Any] = {}
    """The recipe as resolved."""
    data: dict[str, str] = {}
    """Corpus name -> fingerprint."""
    machine: dict[str, Any] = {}
    """Processor, cores, versions."""
    systems: list[int] = []
    """Numbers of the catalogue's systems that this result speaks about."""
    tables: list[dict[str, Any]] = []
    """Further tables for the report: `{"title", "columns", "rows"}`."""
