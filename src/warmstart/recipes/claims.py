"""Claims: checkable sentences about a comparison, and the verdict that follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from warmstart.evaluation.results import Arm, Claim, Interval, Verdict
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import AddedLater, Settings


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
    """One arm is below another in what the curves hold: bits per byte or the comparison's own unit."""

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
    """By how much `better` must be lower; a negative margin claims 'not worse by more than'."""
    over: Annotated[tuple[str, str] | None, AddedLater()] = None
    """Two further arms (better, worse): the gap must be larger than theirs."""


class MeasureClaim(Settings):
    """One arm is better than another, or than a number, in something measured of the models."""

    kind: Literal["measure"] = "measure"
    text: str
    """The claim in words."""
    measure: str
    """`label.number`: the label among the comparison's measures and the number that its step reports."""
    better: str
    """Arm expected to be better."""
    worse: str | float
    """Arm expected to be worse, or a number to be better than."""
    at: Literal["start", "final"] = "final"
    """Before or after training."""
    worse_at: Literal["start", "final"] | None = None
    """The same for `worse`, where it differs."""
    worse_measure: Annotated[str | None, AddedLater()] = None
    """What is measured of `worse`, where it differs: `label.number`."""
    higher: bool = False
    """Whether a higher number is better."""
    margin: float = 0.0
    """By how much `better` must be better; a negative margin claims 'not worse by more than'."""
    over: tuple[str, str] | None = None
    """Two further arms (better, worse): the gap must be larger than theirs."""
    near: str | None = None
    """A further arm: `better` must be nearer to it than `worse` is, in either direction."""
    within: Annotated[float | None, AddedLater()] = None
    """Instead of an order: `better` is this near to `worse` with every seed, as a share of the latter."""


AnyClaim = Annotated[SavingClaim | OrderClaim | MeasureClaim, Field(discriminator="kind")]


def judge(
    claims: Sequence[SavingClaim | OrderClaim | MeasureClaim],
    arms: Sequence[Arm],
    baseline: str,
    unit: str = "bits per byte",
) -> list[Claim]:
    """Decide each claim from the measured arms; `unit` is what their curves hold."""
    known = {arm.name: arm for arm in arms}

    def decide(claim: SavingClaim | OrderClaim | MeasureClaim) -> Claim:
        if isinstance(claim, SavingClaim):
            return _saving(claim, known, baseline)
        return _order(claim, known, unit) if isinstance(claim, OrderClaim) else _measure(claim, known)

    return [decide(claim) for claim in claims]


def arms_of(claims: Iterable[SavingClaim | OrderClaim | MeasureClaim]) -> set[str]:
    """Names of arms that claims speak about."""
    found: list[object] = []
    for claim in claims:
        if isinstance(claim, SavingClaim):
            found += [claim.arm, *claim.among] if claim.arm != "best" else claim.among
        else:
            found += [claim.better, claim.worse]
            found += claim.over or ()
        if isinstance(claim, MeasureClaim) and claim.near:
            found.append(claim.near)
    return {name for name in found if isinstance(name, str)}


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


def _order(claim: OrderClaim, arms: dict[str, Arm], unit: str) -> Claim:
    better, worse = (_loss(_arm(arms, name), claim.at) for name in (claim.better, claim.worse))
    gaps = [w - b - claim.margin for b, w in zip(better, worse, strict=True)]
    others = f"{claim.worse} {_mean(worse):.3f}"
    if claim.over:
        first, second = (_loss(_arm(arms, name), claim.at) for name in claim.over)
        gaps = [gap - (s - f) for gap, f, s in zip(gaps, first, second, strict=True)]
        others += f", and {claim.over[0]} {_mean(first):.3f} against {claim.over[1]} {_mean(second):.3f},"
    holds = _decide(gaps)
    place = {"start": "before training", "final": "after training", "mean": "on average"}
    where = place.get(str(claim.at), f"at {claim.at} of the tokens")
    means = f"{claim.better} {_mean(better):.3f} against {others}"
    return Claim(text=claim.text, holds=holds, measured=f"{means} {unit} {where}{_noise(holds)}")


def _measure(claim: MeasureClaim, arms: dict[str, Arm]) -> Claim:
    better = _measured(_arm(arms, claim.better), claim.measure, claim.at)
    if isinstance(claim.worse, str):
        name = claim.worse_measure or claim.measure
        worse = _measured(_arm(arms, claim.worse), name, claim.worse_at or claim.at)
    else:
        worse = [claim.worse] * len(better)
    sign = -1 if claim.higher else 1
    gaps = [sign * (w - b) - claim.margin for b, w in zip(better, worse, strict=True)]
    when = {"start": "before training", "final": "after training"}
    others = f"{claim.worse} {_mean(worse):.4g}" if isinstance(claim.worse, str) else f"{claim.worse:g}"
    if claim.worse_at not in (None, claim.at):
        others += f" {when[str(claim.worse_at)]}"
    if claim.worse_measure not in (None, claim.measure):
        others += f" ({claim.worse_measure})"
    if claim.near:
        goal = _measured(_arm(arms, claim.near), claim.measure, claim.at)
        gaps = [abs(w - g) - abs(b - g) - claim.margin for b, w, g in zip(better, worse, goal, strict=True)]
        others += f", {claim.near} being {_mean(goal):.4g}"
    if claim.over:
        first, second = (_measured(_arm(arms, name), claim.measure, claim.at) for name in claim.over)
        gaps = [gap - sign * (s - f) for gap, f, s in zip(gaps, first, second, strict=True)]
        others += f"; {claim.over[0]} {_mean(first):.4g} against {claim.over[1]} {_mean(second):.4g}"
    holds = _decide(gaps)
    if claim.within is not None:
        holds = all(abs(b - w) <= claim.within * abs(w) for b, w in zip(better, worse, strict=True))
        others += f", asked within {claim.within:.3g} of it"
    means = f"{claim.better} {_mean(better):.4g} {when[claim.at]} against {others}"
    return Claim(text=claim.text, holds=holds, measured=f"{means} ({claim.measure}){_noise(holds)}")


def _decide(gaps: Sequence[float]) -> bool | None:
    """Whether paired gaps lie above zero; None where their mean does but not their 95 % interval."""
    from warmstart.evaluation import interval

    gap = interval(gaps)
    if gap.low > 0 or (len(gaps) == 1 and gap.mean > 0):
        return True
    return False if gap.mean <= 0 else None


def _noise(holds: bool | None) -> str:
    return "" if holds is not None else ", within seed noise"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _measured(arm: Arm, name: str, at: Literal["start", "final"]) -> list[float]:
    if name not in arm.measures:
        raise UserError(
            f"a claim names the measure {name!r}", where="claims", fix=nearest(name, arm.measures)
        )
    return list(getattr(arm.measures[name], at).per_seed)


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
