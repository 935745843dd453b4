from __future__ import annotations

from typing import Any

import pytest

from warmstart.evaluation import interval, savings
from warmstart.evaluation.curves import Curve, CurvePoint
from warmstart.evaluation.results import Arm, Claim, Measured
from warmstart.foundation.errors import UserError
from warmstart.recipes.claims import MeasureClaim, OrderClaim, SavingClaim, arms_of, judge, verdict
from warmstart.recipes.compare import sentence


def arm(name: str, *losses: list[float]) -> Arm:
    curves = [
        Curve(
            seed=seed,
            points=[
                CurvePoint(step=i, tokens=i * 100, seconds=float(i), flops=float(i), bpb=bpb)
                for i, bpb in enumerate(line)
            ],
        )
        for seed, line in enumerate(losses)
    ]
    return Arm(
        name=name,
        description="",
        learning_rate=1.0,
        learning_rates={},
        curves=curves,
        final_bpb=interval([c.final for c in curves]),
        savings=[],
    )


def with_savings(made: Arm, baseline: Arm) -> Arm:
    found = [savings(made.curves, baseline.curves, axis) for axis in ("tokens", "flops", "seconds")]
    return made.model_copy(update={"savings": found})


BASE = arm("scratch", [8, 6, 5, 4, 3], [8, 6.1, 5, 4, 3.1], [8, 6, 5.1, 4, 3.05])
FAST = with_savings(arm("fast", [6, 3, 2.5, 2.2, 2], [6, 3.1, 2.5, 2.2, 2], [6, 3.05, 2.5, 2.2, 2]), BASE)
NEVER = with_savings(arm("never", [8, 7, 6, 5, 4], [8, 7, 6, 5, 4], [8, 7, 6, 5, 4]), BASE)
ARMS = [BASE, FAST, NEVER]


@pytest.mark.parametrize(
    ("claim", "holds"),
    [
        (SavingClaim(text="", arm="fast", at_most=0.25), True),
        (SavingClaim(text="", arm="fast", at_most=0.2), False),
        (SavingClaim(text="", arm="best", at_most=0.26), True),
        (SavingClaim(text="", arm="best", among=["never"], at_most=0.9), False),
        (SavingClaim(text="", arm="never", at_most=0.9), False),
        (OrderClaim(text="", better="fast", worse="scratch"), True),
        (OrderClaim(text="", better="scratch", worse="fast"), False),
        (OrderClaim(text="", better="fast", worse="scratch", margin=2), False),
        (OrderClaim(text="", better="scratch", worse="never", at="start"), False),
        (OrderClaim(text="", better="scratch", worse="never", at="start", margin=-0.1), True),
        (OrderClaim(text="", better="scratch", worse="never", at=0.5), True),
        (OrderClaim(text="", better="fast", worse="never", at="mean"), True),
        (OrderClaim(text="", better="fast", worse="never", over=("fast", "scratch")), True),
        (OrderClaim(text="", better="fast", worse="scratch", over=("fast", "never")), False),
    ],
)
def test_claims_can_hold_and_fail(claim: SavingClaim | OrderClaim, holds: bool) -> None:
    (decided,) = judge([claim], ARMS, "scratch")
    assert decided.holds is holds and decided.measured


def test_a_difference_within_seed_noise_is_not_decided() -> None:
    noisy = arm("noisy", [8, 6, 5, 4, 2.0], [8, 6, 5, 4, 3.9], [8, 6, 5, 4, 3.0])
    (decided,) = judge([OrderClaim(text="", better="noisy", worse="scratch")], [BASE, noisy], "scratch")
    assert decided.holds is None and "within seed noise" in decided.measured


def test_a_claim_about_an_unknown_arm_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'fast'"):
        judge([SavingClaim(text="", arm="fats", at_most=1)], ARMS, "scratch")


def test_verdicts() -> None:
    yes, no, open_ = (Claim(text="", holds=h, measured="") for h in (True, False, None))
    assert verdict([yes, yes]) == "reproduced"
    assert verdict([yes, no]) == verdict([yes, open_]) == "partly"
    assert verdict([no, open_]) == "not reproduced"
    assert verdict([]) == "not run"


def test_the_sentence_names_the_best_arm_and_its_share() -> None:
    said = sentence(ARMS, "scratch")
    assert "fast" in said and "25 %" in said.replace("%", " %") and "4.0 times" in said
    assert "No warm start reached" in sentence([BASE, NEVER], "scratch")


def measured(name: str, start: list[float], final: list[float]) -> Arm:
    found = Measured(start=interval(start), final=interval(final))
    return arm(name, *([1.0] for _ in start)).model_copy(update={"measures": {"probe.accuracy": found}})


GOOD = measured("good", [0.1, 0.1, 0.1], [0.8, 0.82, 0.81])
BAD = measured("bad", [0.1, 0.1, 0.1], [0.5, 0.9, 0.6])


@pytest.mark.parametrize(
    ("better", "worse", "more", "holds"),
    [
        ("good", "bad", {"higher": True}, None),
        ("good", "bad", {}, False),
        ("good", "good", {"higher": True, "worse_at": "start"}, True),
        ("good", "good", {"higher": True, "worse_at": "start", "margin": 0.8}, False),
        ("good", 0.75, {"higher": True}, True),
        ("good", 0.75, {}, False),
        ("good", 0.75, {"at": "start"}, True),
        ("good", "bad", {"at": "start", "margin": -0.01}, True),
        ("good", "bad", {"at": "start"}, False),
    ],
)
def test_claims_about_measures(
    better: str, worse: str | float, more: dict[str, Any], holds: bool | None
) -> None:
    claim = MeasureClaim(text="", measure="probe.accuracy", better=better, worse=worse, **more)
    (found,) = judge([claim], [GOOD, BAD], "bad")
    assert found.holds is holds
    assert "probe.accuracy" in found.measured and ("noise" in found.measured) == (holds is None)


def test_a_claim_may_compare_two_measures() -> None:
    """One arm's front by one way of pruning against another's by another."""
    both = {
        "prefix.volume": Measured(start=interval([0.1] * 3), final=interval([0.5] * 3)),
        "magnitude.volume": Measured(start=interval([0.1] * 3), final=interval([0.6] * 3)),
    }
    arms = [GOOD.model_copy(update={"measures": both}), BAD.model_copy(update={"measures": both})]
    claim = MeasureClaim(text="", measure="prefix.volume", better="good", worse="bad", higher=True)
    other = claim.model_copy(update={"worse_measure": "magnitude.volume"})
    lower = other.model_copy(update={"measure": "magnitude.volume", "worse_measure": "prefix.volume"})
    (worse,), (better,) = judge([other], arms, "bad"), judge([lower], arms, "bad")
    assert worse.holds is False and better.holds is True
    assert worse.measured == "good 0.5 after training against bad 0.6 (magnitude.volume) (prefix.volume)"


@pytest.mark.parametrize(
    ("better", "worse", "more", "holds"),
    [
        ("good", "bad", {"over": ("even", "bad"), "higher": True}, True),
        ("even", "bad", {"over": ("good", "bad"), "higher": True}, False),
        ("even", "good", {"over": ("good", "even")}, True),
        ("even", "bad", {"near": "good"}, None),
        ("good", "even", {"near": "even"}, False),
        ("even", "good", {"near": "even"}, True),
    ],
)
def test_gaps_of_gaps_and_nearness(better: str, worse: str, more: dict[str, Any], holds: bool | None) -> None:
    even = measured("even", [0.1, 0.1, 0.1], [0.7, 0.7, 0.7])
    claim = MeasureClaim(text="", measure="probe.accuracy", better=better, worse=worse, **more)
    (found,) = judge([claim], [GOOD, BAD, even], "bad")
    assert found.holds is holds and "0.7" in found.measured


def test_all_arms_of_claims_are_known() -> None:
    claims = [
        SavingClaim(text="", arm="best", among=["a"], at_most=1),
        SavingClaim(text="", arm="b", at_most=1),
        OrderClaim(text="", better="c", worse="d"),
        MeasureClaim(text="", measure="m.n", better="e", worse=0.5, over=("f", "g"), near="h"),
    ]
    assert arms_of(claims) == set("abcdefgh")


def test_an_unknown_measure_is_named() -> None:
    claim = MeasureClaim(text="", measure="probe.acuracy", better="good", worse="bad")
    with pytest.raises(UserError, match=r"probe\.accuracy"):
        judge([claim], [GOOD, BAD], "bad")


@pytest.mark.parametrize(("within", "holds"), [(0.02, True), (0.01, False), (0, False)])
def test_a_number_may_have_to_be_met(within: float, holds: bool) -> None:
    found = interval([100.0, 101.5, 99.0])
    made = BASE.model_copy(update={"measures": {"plan.days": Measured(start=found, final=found)}})
    claim = MeasureClaim(text="", measure="plan.days", better="scratch", worse=100, within=within)
    (decided,) = judge([claim], [made], "scratch")
    assert decided.holds is holds and "within" in decided.measured, "every seed must be that near"


def test_arms_of_an_interaction_are_known() -> None:
    claim = OrderClaim(text="", better="a", worse="b", over=("c", "d"))
    assert arms_of([claim]) == {"a", "b", "c", "d"}
