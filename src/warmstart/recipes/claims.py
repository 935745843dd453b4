"""Claims: checkable sentences about a comparison, and the verdict that follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from warmstart.evaluation.results import Arm, Claim, Interval, Verdict
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import Settings


class SavingClaim(Settings):
    """An arm reaches the baseline's final loss at a fraction of its cost."""

    kind: Literal["saving"] = "saving"
    text: str
    """The claim in words."""
    arm: str
    """Name of the arm, or `best` for the one with the lowest cost."""
    among: list[str] = []
    """Arms that `best` chooses from; all but the baseline when empty."""
    axis: Literal["tokens", "flops", "seconds"] = "tokens"
    """What is counted."""
    at_most: float
    """Largest ratio to the baseline's cost at which the claim holds."""


class OrderClaim(Settings):
    """One arm is below another in bits per byte."""

    kind: Literal["order"] = "order"
    text: str
    """The claim in words."""
    better: str
    """Arm expected to have the lower loss."""
    worse: str
    """Arm expected to have the higher loss."""
    at: float | Literal["start", "final", "mean"] = "final"
    """Where: before training, after it, averaged over all points after the start, or at this fraction of the
    training tokens (the nearest evaluation point)."""
    margin: float = 0.0
    """Bits per byte by which `better` must be lower; a negative margin claims 'not worse by more than'."""


AnyClaim = Annotated[SavingClaim | OrderClaim, Field(discriminator="kind")]


def judge(claims: Sequence[SavingClaim | OrderClaim], arms: Sequence[Arm], baseline: str) -> list[Claim]:
    """Decide each claim from the measured arms."""
    known = {arm.name: arm for arm in arms}
    return [
        _saving(claim, known, baseline) if isinstance(claim, SavingClaim) else _order(claim, known)
        for claim in claims
    ]


def verdict(claims: Sequence[Claim]) -> Verdict:
    """`reproduced` when all hold, `not reproduced` when none does, `partly` otherwise."""
    if not claims:
        return "not run"
    holding = [claim for claim in claims if claim.holds]
    if len(holding) == len(claims):
        return "reproduced"
    return "partly" if holding else "not reproduced"


def ratio_of(arm: Arm, axis: str) -> float:
    """Mean cost ratio of an arm on an axis, infinite when a seed never reached the baseline's loss."""
    saving = next((s for s in arm.savings if s.axis == axis), None)
    return saving.ratio.mean if saving and saving.reached and saving.ratio else float("inf")


def _saving(claim: SavingClaim, arms: dict[str, Arm], baseline: str) -> Claim:
    names = claim.among or [name for name in arms if name != baseline]
    if claim.arm != "best":
        names = [claim.arm]
    arm = min((_arm(arms, name) for name in names), key=lambda a: ratio_of(a, claim.axis))
    saving = next(s for s in arm.savings if s.axis == claim.axis)
    if not saving.reached or saving.ratio is None:
        return Claim(
            text=claim.text, holds=False, measured=f"{arm.name} never reached {baseline}'s final loss"
        )
    ratio = saving.ratio
    measured = f"{arm.name} needs {ratio.mean:.1%} of the {claim.axis} ({_span(ratio, '.1%')})"
    return Claim(text=claim.text, holds=ratio.mean <= claim.at_most, measured=measured)


def _order(claim: OrderClaim, arms: dict[str, Arm]) -> Claim:
    from warmstart.evaluation import interval

    better, worse = (_loss(_arm(arms, name), claim.at) for name in (claim.better, claim.worse))
    gap = interval([w - b - claim.margin for b, w in zip(better, worse, strict=True)])
    if gap.low > 0 or (len(better) == 1 and gap.mean > 0):
        holds: bool | None = True
    elif gap.mean <= 0:
        holds = False
    else:
        holds = None
    mean_b, mean_w = sum(better) / len(better), sum(worse) / len(worse)
    place = {"start": "before training", "final": "after training", "mean": "on average"}
    where = place.get(str(claim.at), f"at {claim.at} of the tokens")
    noise = "" if holds is not None else ", within seed noise"
    measured = f"{claim.better} {mean_b:.3f} against {claim.worse} {mean_w:.3f} bits per byte {where}{noise}"
    return Claim(text=claim.text, holds=holds, measured=measured)


def _loss(arm: Arm, at: float | str) -> list[float]:
    values = []
    for curve in sorted(arm.curves, key=lambda c: c.seed):
        points = curve.points
        if at == "start":
            values.append(points[0].bpb)
        elif at == "final":
            values.append(points[-1].bpb)
        elif at == "mean":
            values.append(sum(p.bpb for p in points[1:]) / max(1, len(points) - 1))
        else:
            goal = float(at) * points[-1].tokens
            values.append(min(points, key=lambda p: abs(p.tokens - goal)).bpb)
    return values


def _arm(arms: dict[str, Arm], name: str) -> Arm:
    if name not in arms:
        raise UserError(f"a claim names the arm {name!r}", where="claims", fix=nearest(name, arms))
    return arms[name]


def _span(value: Interval, form: str) -> str:
    if len(value.per_seed) < 2:
        return "one seed"
    return f"95 % interval {value.low:{form}} to {value.high:{form}}, {len(value.per_seed)} seeds"
