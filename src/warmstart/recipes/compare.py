"""The comparison harness: arms at equal tokens and steps, each with its own tuned rate, paired over seeds."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.corpus.settings import CorpusSettings
from warmstart.evaluation.curves import Curve
from warmstart.evaluation.results import Arm, ComparisonResult
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.progress import note
from warmstart.foundation.settings import Settings
from warmstart.recipes.claims import AnyClaim, judge, ratio_of, verdict
from warmstart.recipes.schema import parse_step
from warmstart.training.settings import TrainSettings

if TYPE_CHECKING:
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
    train: dict[str, Any] = {}
    """Overrides of the shared training settings."""


class CompareSettings(Settings):
    """Several arms trained on the same text for the same tokens and steps, against a baseline."""

    title: str = ""
    """What the comparison shows, in one line."""
    corpus: CorpusSettings
    """Text to train on; its `valid` part tunes the learning rates, its `test` part is reported."""
    arms: dict[str, ArmSettings]
    """Arm name -> how its model starts."""
    baseline: str = "scratch"
    """Arm whose final loss the others have to reach."""
    train: TrainSettings = TrainSettings()
    """Training settings shared by all arms."""
    learning_rates: list[float] = []
    """Rates tried for each arm on a separate seed and the `valid` text. While the best one is the lowest or
    highest, the grid is extended by a factor of two, at most `extend` times. Empty: `train.learning_rate`."""
    extend: int = 2
    """How often a grid may be extended."""
    tune_fraction: float = 0.3
    """Share of the token budget that a tuning run gets (with its own full schedule)."""
    seeds: list[int] = [0, 1, 2]
    """Seeds of the reported runs: data order, dropout and random rows; arms are paired by seed."""
    eval_max_bytes: int = 65536
    """UTF-8 bytes of held-out text measured at each evaluation point."""
    claims: list[AnyClaim] = []
    """Sentences that the result has to decide."""
    sample_prompt: str = ""
    """Text that the finished models continue in the report; the start of a held-out document when empty."""
    scale: str = "own"
    """Name of the scale, shown beside the verdict."""
    systems: list[int] = []
    """Numbers of the catalogue's systems that the result speaks about."""


def run_comparison(name: str, settings: CompareSettings, runner: Runner) -> ComparisonResult:
    """Train every arm and measure what it saved against the baseline.

    Raises:
        UserError: For a missing baseline, unusable claims, or budgets that are not in tokens or steps.
    """
    check(settings)
    trained = {arm: _train_arm(arm, settings, runner) for arm in settings.arms}
    baseline = trained[settings.baseline]
    arms = [_with_savings(arm, baseline) if arm is not baseline else arm for arm in trained.values()]
    claims = judge(settings.claims, arms, settings.baseline)
    prompt, before, samples = _samples(settings, arms, runner)
    arms = [arm.model_copy(update={"sample": samples.get(arm.name, "")}) for arm in arms]
    best = min(
        (a for a in arms if a.name != settings.baseline),
        key=lambda a: ratio_of(a, "tokens"),
        default=baseline,
    )
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus
    from warmstart.evaluation.machine import machine

    lineage = resolve(best.checkpoint).lineage
    return ComparisonResult(
        name=name,
        title=settings.title or name,
        sentence=sentence(arms, settings.baseline),
        verdict=verdict(claims),
        claims=claims,
        scale=settings.scale,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        baseline=settings.baseline,
        arms=arms,
        seeds=settings.seeds,
        sample_prompt=prompt,
        sample_before=before,
        lineage=lineage.model_dump(mode="json") if lineage else {},
        settings=settings.model_dump(mode="json", exclude_defaults=True),
        data={str(settings.corpus.path): open_corpus(settings.corpus).fingerprint},
        machine=machine(),
        systems=settings.systems,
    )


def check(settings: CompareSettings) -> None:
    """Refuse what would only fail after hours of training."""
    if settings.baseline not in settings.arms:
        raise UserError(
            f"the baseline {settings.baseline!r} is no arm",
            where="compare",
            fix=nearest(settings.baseline, settings.arms),
        )
    if not settings.seeds or len(set(settings.seeds)) != len(settings.seeds) or TUNING_SEED in settings.seeds:
        raise UserError(f"seeds must be different numbers other than {TUNING_SEED}", where="compare")
    names = {
        str(getattr(c, key)) for c in settings.claims for key in ("arm", "better", "worse") if hasattr(c, key)
    }
    names |= {name for c in settings.claims for name in getattr(c, "among", [])}
    for name in sorted(names - {"best", *settings.arms}):
        raise UserError(f"a claim names the arm {name!r}", where="compare", fix=nearest(name, settings.arms))
    if settings.train.max_tokens is None and settings.train.max_steps is None:
        raise UserError("arms are compared at equal tokens", where="compare", fix="set train.max_tokens")
    for name, arm in settings.arms.items():
        parse_step(arm.start, where=f"arm {name}")
        TrainSettings.parse(settings.train.model_dump() | arm.train, where=f"arm {name}")


def start_arm(arm: ArmSettings, seed: int, runner: Runner, name: str) -> Path:
    """The checkpoint that an arm trains from, with the seed passed on to the surgery where it takes one."""
    kind, parsed = parse_step(arm.start, where=f"arm {name}")
    values = parsed.model_dump(mode="json", exclude_unset=True)
    if "seed" in type(parsed).model_fields and "seed" not in arm.start:
        values["seed"] = seed
    return runner.step(kind, values, name=f"{name}, seed {seed}")


def _train_arm(name: str, settings: CompareSettings, runner: Runner) -> Arm:
    arm = settings.arms[name]
    grid = arm.learning_rates or settings.learning_rates or [_rate(settings, arm)]
    tried = _tune(name, arm, grid, settings, runner)
    rate = min(tried, key=lambda r: tried[r]) if tried else grid[0]
    curves, first = [], None
    for seed in settings.seeds:
        start = start_arm(arm, seed, runner, name)
        values = _shared(settings, arm) | {"learning_rate": rate, "seed": seed, "eval_split": "test"}
        output = runner.step("train", values | {"source": str(start)}, name=f"{name}, seed {seed}")
        curves.append(read_curve(output))
        first = first or output
        note(f"  {name}, seed {seed}: {curves[-1].final:.3f} bits per byte")
    from warmstart.evaluation import interval

    assert first is not None
    return Arm(
        name=name,
        description=arm.describe,
        learning_rate=rate,
        learning_rates={f"{key:g}": value for key, value in sorted(tried.items())},
        curves=curves,
        final_bpb=interval([curve.final for curve in curves]),
        savings=[],
        checkpoint=str(first),
        extra=_extra(first),
    )


def _shared(settings: CompareSettings, arm: ArmSettings) -> dict[str, Any]:
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
    shared = _shared(settings, arm)
    budget = {
        key: max(1, int(shared[key] * settings.tune_fraction))
        for key in ("max_tokens", "max_steps")
        if shared.get(key) is not None
    }
    losses: dict[float, float] = {}

    def measure(rate: float) -> None:
        values = shared | budget | {"learning_rate": rate, "seed": TUNING_SEED, "eval_split": "valid"}
        values |= {"source": str(start), "keep": False, "eval_points": []}
        losses[rate] = read_curve(runner.step("train", values, name=f"{name}, rate {rate:g}")).final

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
    """The curve that a `train` step left in its artifact."""
    return Curve.model_validate_json((output / "training.json").read_text())


def _with_savings(arm: Arm, baseline: Arm) -> Arm:
    from warmstart.evaluation import savings

    found = [savings(arm.curves, baseline.curves, axis) for axis in ("tokens", "flops", "seconds")]
    return arm.model_copy(update={"savings": found})


def sentence(arms: Sequence[Arm], baseline: str) -> str:
    """The outcome in one sentence for a newcomer."""
    others = sorted((a for a in arms if a.name != baseline), key=lambda a: ratio_of(a, "tokens"))
    if not others:
        return f"Only {baseline} was trained, so nothing was compared."
    best, ratio = others[0], ratio_of(others[0], "tokens")
    if ratio == float("inf"):
        best = min(others, key=lambda a: a.final_bpb.mean)
        reached = sum(a <= b for a, b in zip(best.final_bpb.per_seed, _finals(arms, baseline), strict=True))
        if not reached:
            return f"No warm start reached the final loss of {baseline} within the same number of tokens."
        return (
            f"No warm start reached the final loss of {baseline} in every seed: "
            f"the best, {best.name}, did in {reached} of {len(best.curves)}."
        )
    if ratio == 0:
        return f"The warm start {best.name} is at the final loss of {baseline} training before any training."
    times = f"{1 / ratio:.1f} times"
    if ratio >= 1:
        return f"No warm start was cheaper: the best, {best.name}, needs {ratio:.0%} of {baseline}'s tokens."
    return (
        f"Starting from an existing model ({best.name}) reaches the loss of {baseline} training "
        f"with {ratio:.0%} of the training tokens, {times} fewer."
    )


def _finals(arms: Sequence[Arm], name: str) -> list[float]:
    return next(arm for arm in arms if arm.name == name).final_bpb.per_seed


def _extra(output: Path) -> dict[str, Any]:
    from warmstart.checkpoint import resolve

    lineage = resolve(output).lineage
    if lineage is None:
        return {}
    surgery = lineage.parents[0].lineage if lineage.parents else None
    return dict(lineage.measured) | {
        f"start {k}": v for k, v in (surgery.measured if surgery else {}).items()
    }


def _samples(
    settings: CompareSettings, arms: Sequence[Arm], runner: Runner
) -> tuple[str, str, dict[str, str]]:
    """Prompt, the source model's continuation and every arm's."""
    from warmstart.checkpoint import resolve
    from warmstart.corpus import open_corpus
    from warmstart.evaluation import generate_sample

    prompt = settings.sample_prompt
    if not prompt:
        document = next(iter(open_corpus(settings.corpus).documents("test")))
        words = document.text.split()
        prompt = " ".join(words[: max(3, min(12, len(words) // 2))])

    def continued(path: str) -> str:
        checkpoint = resolve(path)
        return generate_sample(
            checkpoint.load_model(), checkpoint.load_tokenizer(), prompt, max_new_tokens=48
        )

    sources = [arm.start["source"] for arm in settings.arms.values() if "source" in arm.start]
    before = continued(str(sources[0])) if sources else ""
    return prompt, before, {arm.name: continued(arm.checkpoint) for arm in arms}


def write_result(result: ComparisonResult, folder: Path) -> None:
    """`result.json`, `report.html` and the plots as PNG."""
    from warmstart.report import export_plots, write_report

    (folder / "result.json").write_text(
        json.dumps(result.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    write_report(result, folder / "report.html")
    export_plots(result, folder / "plots")
