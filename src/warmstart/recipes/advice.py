"""What `advise` says: the recommended initialiser, the numbers behind it and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from warmstart.evaluation.results import Arm, ComparisonResult, Interval


class Candidate(BaseModel):
    """One initialiser and what was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    initialiser: str
    given: str
    """Evidence that it was given."""
    start: float
    """Bits per byte before training."""
    final: Interval
    """Bits per byte after the run, over seeds."""
    behind: Interval
    """By how much it is worse than the recommended one, paired by seed; zero for that one itself."""
    tied: bool
    """Whether the difference is within seed noise."""
    learning_rate: float
    seconds: float
    """Time of the transplant."""


class Advice(BaseModel):
    """What to use, and how sure that is."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recommended: str
    sure: Literal["clear", "tied", "one seed", "no rival"]
    """`clear`: better than every other by more than seed noise. `tied`: some cannot be told apart from it."""
    sentence: str
    """The advice in words."""
    stable: bool
    """Whether the same one was best half-way; if not, longer runs may end differently."""
    tokens: int
    """Training tokens of each run."""
    candidates: list[Candidate]
    """Best first."""
    left_out: dict[str, str]
    """Initialiser -> why it was not tried."""
    seconds: float
    """What the advice took, cached steps not counted again."""
    tokenizer: str
    """Folder of the new tokenizer."""
    command: str
    """How to follow the advice."""


def judged(
    result: ComparisonResult,
    given: Mapping[str, str],
    left_out: dict[str, str],
    *,
    tokenizer: str,
    seconds: float,
    command: Callable[[str], str],
) -> Advice:
    """The advice that follows from a comparison.

    Args:
        result: All candidates, at equal tokens, with one evaluation half-way.
        given: Candidate -> evidence that it was given.
        left_out: Initialiser -> why it was not tried.
        tokenizer: Folder of the new tokenizer.
        seconds: What the measurement took.
        command: Name of an initialiser to the command that uses it.
    """
    ordered = sorted(result.arms, key=lambda arm: arm.final_bpb.mean)
    best = ordered[0]
    candidates = [_candidate(arm, best, given[arm.name]) for arm in ordered]
    half = min(result.arms, key=lambda arm: sum(curve.points[1].bpb for curve in arm.curves))
    ties = [c for c in candidates[1:] if c.tied]
    sure: Literal["clear", "tied", "one seed", "no rival"] = "tied" if ties else "clear"
    if len(candidates) == 1:
        sure = "no rival"
    elif len(result.seeds) == 1:
        sure = "one seed"
    tokens = best.curves[0].points[-1].tokens
    return Advice(
        recommended=best.name,
        sure=sure,
        sentence=_sentence(candidates, sure, tokens, stable=half.name == best.name),
        stable=half.name == best.name,
        tokens=tokens,
        candidates=candidates,
        left_out=left_out,
        seconds=round(seconds, 1),
        tokenizer=tokenizer,
        command=command(best.name),
    )


def _candidate(arm: Arm, best: Arm, given: str) -> Candidate:
    from warmstart.evaluation import interval

    pairs = zip(arm.final_bpb.per_seed, best.final_bpb.per_seed, strict=True)
    behind = interval([own - other for own, other in pairs])
    return Candidate(
        initialiser=arm.name,
        given=given,
        start=sum(curve.points[0].bpb for curve in arm.curves) / len(arm.curves),
        final=arm.final_bpb,
        behind=behind,
        tied=arm.name != best.name and behind.low <= 0,
        learning_rate=arm.learning_rate,
        seconds=float(arm.extra.get("start seconds", math.nan)),
    )


def _sentence(candidates: list[Candidate], sure: str, tokens: int, *, stable: bool) -> str:
    best = candidates[0]
    said = f"Use {best.initialiser}: {best.final.mean:.3f} bits per byte after {tokens:,} tokens"
    if sure == "no rival":
        return f"{said}; nothing else was tried, so this says only that it works."
    second = candidates[1]
    said += f", {second.initialiser} {second.final.mean:.3f}"
    tied = [c for c in candidates if c.tied]
    if sure == "one seed":
        said += ". With one seed nobody knows how sure that is."
    elif sure == "clear":
        said += f"; it is ahead by {second.behind.mean:.3f} (95 % interval {second.behind.low:.3f} to "
        said += f"{second.behind.high:.3f}, {len(second.behind.per_seed)} seeds)."
    else:
        cheapest = min([best, *tied], key=lambda c: c.seconds)
        names = ", ".join(c.initialiser for c in tied)
        said += f". Not to be told apart from it within seed noise: {names}"
        said += f"; {cheapest.initialiser} takes the least time ({cheapest.seconds:.1f} s)."
    if not stable:
        said += " Half-way another one was best: longer runs may end differently."
    return said
