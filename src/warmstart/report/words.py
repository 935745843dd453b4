"""Numbers and outcomes in plain words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from warmstart.evaluation.results import Arm, ComparisonResult, Interval, Saving

_SI = ((1e24, "Y"), (1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def si(value: float, digits: int = 3) -> str:
    """`819200` as `819k`, with `digits` that matter."""
    for factor, prefix in _SI:
        if abs(value) >= 0.9995 * factor:
            return f"{_digits(value / factor, digits)}{prefix}"
    return _digits(value, digits)


def _digits(value: float, digits: int) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.{digits}g}")  # first, so that 0.9999 has as many digits as 1.00
    text = f"{rounded:.{max(0, digits - 1 - math.floor(math.log10(abs(rounded))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float) -> str:
    """`133` as `2 min 13 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def cost(value: float, axis: str) -> str:
    """A cost with its unit."""
    if axis == "seconds":
        return duration(value)
    if axis == "flops":
        text = si(value)
        return f"{text[:-1]} {text[-1]}FLOP" if text[-1:].isalpha() else f"{text} FLOP"
    return si(value)


def percent(value: float) -> str:
    """`0.123` as `12 %`, `0.0432` as `4.3 %`, `3.2` as `320 %`."""
    return f"{100 * value:.1f} %" if value < 0.0995 else f"{100 * value:.0f} %"


def spread(value: Interval, digits: int = 3) -> str:
    """`± half-width` of a 95 % interval, nothing for one seed."""
    return f"± {(value.high - value.low) / 2:.{digits}f}" if len(value.per_seed) > 1 else ""


def span(value: Interval) -> str:
    """A 95 % interval of shares as `15 to 18 %`; nothing is cheaper than free."""
    low, high = percent(max(0.0, value.low)), percent(value.high)
    return f"{low.removesuffix(' %')} to {high}"


def numeric(rows: Sequence[Sequence[Any]], column: int) -> bool:
    """Whether a table's column holds numbers only, so that it is set flush right."""
    values = [row[column] for row in rows if column < len(row) and row[column] is not None]
    return bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def saving(arm: Arm, axis: str) -> Saving | None:
    """The arm's saving on an axis, if it was measured."""
    return next((s for s in arm.savings if s.axis == axis), None)


def ratio(arm: Arm, axis: str = "tokens") -> float:
    """Mean share of the baseline's cost; infinite when the arm never reached the baseline's loss."""
    found = saving(arm, axis)
    return found.ratio.mean if found and found.reached and found.ratio else math.inf


def best_arm(result: ComparisonResult) -> Arm | None:
    """The cheapest arm other than the baseline; None when there is no other."""
    others = [arm for arm in result.arms if arm.name != result.baseline]
    return min(others, key=lambda arm: (ratio(arm), arm.final_bpb.mean), default=None)


def baseline_arm(result: ComparisonResult) -> Arm | None:
    """The arm that the savings refer to."""
    return next((arm for arm in result.arms if arm.name == result.baseline), None)


def seeds_reached(result: ComparisonResult, arm: Arm) -> int:
    """In how many seeds the arm came down to the final loss of the baseline with the same seed."""
    base = baseline_arm(result)
    finals = {curve.seed: curve.final for curve in base.curves} if base else {}
    return sum(
        any(p.bpb <= finals[curve.seed] for p in curve.points) for curve in arm.curves if curve.seed in finals
    )


def continuation(text: str, prompt: str) -> str:
    """What a model wrote, without the prompt that it was given."""
    return text[len(prompt) :] if prompt and text.startswith(prompt) else text


def meaning(result: ComparisonResult) -> str:
    """What the numbers mean for someone who has not seen such a page before."""
    best, base = best_arm(result), baseline_arm(result)
    scale = f"Fewer {result.unit} mean that the model predicts the held-out text better."
    if base is None or best is None:
        return scale
    share, target = ratio(best), f"{base.final_bpb.mean:.2f} {result.unit}"
    spent = max((p.tokens for curve in base.curves for p in curve.points), default=0)
    found = saving(best, "tokens")
    if math.isinf(share) or found is None or found.cost is None:
        gap = best.final_bpb.mean - base.final_bpb.mean
        side = "above" if gap > 0 else "below"
        reached = seeds_reached(result, best)
        some = f"; only {reached} of its {len(best.curves)} seeds came down to {base.name}'s final loss"
        text = (
            f"After the same {si(spent)} tokens, {base.name} stood at {target} and the closest other arm, "
            f"{best.name}, {abs(gap):.2f} {side} it{some if reached else ''}: the reuse saved nothing "
            "that can be shown."
        )
    elif share <= 1:
        text = (
            f"To come down to {target}, {base.name} read {si(spent)} tokens of text and {best.name} "
            f"{si(found.cost.mean)}: where {base.name} trains for ten hours, {best.name} trains for "
            f"{hours(10 * share)}."
        )
    else:
        text = (
            f"{best.name} cost more: it needed {percent(share)} of what {base.name} read to reach {target}."
        )
    return f"{text} {scale}{caution(result)}"


def hours(count: float) -> str:
    """A duration given in hours, in a unit that a person would use."""
    if count >= 1.5:
        return f"{count:.1f} hours" if count < 9.95 else f"{count:.0f} hours"
    return f"{count * 60:.0f} minutes" if count * 60 >= 2 else f"{count * 3600:.0f} seconds"


def caution(result: ComparisonResult) -> str:
    """What keeps the result from being stronger evidence."""
    seeds = len(result.seeds)
    if seeds == 1:
        return " Only one seed was run: small differences may be chance."
    return ""
