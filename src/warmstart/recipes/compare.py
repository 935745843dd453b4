"""The comparison harness: arms at equal tokens and steps, each with its own tuned rate, paired over seeds."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.corpus.settings import CorpusSettings
from warmstart.evaluation.results import Arm, ComparisonResult
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import Settings
from warmstart.recipes.arms import TUNING_SEED, ArmSettings, check_arm, check_measures, train_arm
from warmstart.recipes.claims import AnyClaim, MeasureClaim, arms_of, judge, ratio_of, verdict
from warmstart.recipes.ranks import ranks_table
from warmstart.training.settings import TrainSettings

if TYPE_CHECKING:
    from warmstart.recipes.runner import Runner


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
    unit: str = "bits per byte"
    """What the points of a curve are, where the arms' step measures something else."""
    measures: dict[str, dict[str, Any]] = {}
    """Label -> typed step that measures, such as `{type: retrieve, parallel: …}`, without its source: it runs
    on every arm's model before and after training with each seed. Claims of kind `measure` speak about it."""
    shown: list[str] = []
    """Measured numbers, as `label.number`, that the report shows besides those that claims speak about; all
    where there are neither."""
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
    trained = {arm: train_arm(arm, settings, runner) for arm in settings.arms}
    baseline = trained[settings.baseline]
    arms = [_with_savings(arm, baseline) if arm is not baseline else arm for arm in trained.values()]
    claims = judge(settings.claims, arms, settings.baseline, settings.unit)
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
        unit=settings.unit,
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
        tables=_tables(arms, settings),
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
    for name in sorted(arms_of(settings.claims) - set(settings.arms)):
        raise UserError(f"a claim names the arm {name!r}", where="compare", fix=nearest(name, settings.arms))
    if settings.train.max_tokens is None and settings.train.max_steps is None:
        raise UserError("arms are compared at equal tokens", where="compare", fix="set train.max_tokens")
    for name in settings.arms:
        check_arm(name, settings)
    check_measures(settings.measures)
    named = [
        str(name).partition(".")[0]
        for claim in settings.claims
        if isinstance(claim, MeasureClaim)
        for name in (claim.measure, claim.worse_measure or claim.measure)
    ]
    for label in named:
        if label not in settings.measures:
            raise UserError(
                f"a claim names the measure {label!r}", where="compare", fix=nearest(label, settings.measures)
            )


def _with_savings(arm: Arm, baseline: Arm) -> Arm:
    from warmstart.evaluation import savings

    found = [savings(arm.curves, baseline.curves, axis) for axis in ("tokens", "flops", "seconds")]
    return arm.model_copy(update={"savings": found})


def _tables(arms: Sequence[Arm], settings: CompareSettings) -> list[dict[str, Any]]:
    found = [ranks_table(arms)] if len(arms) > 2 else []
    return [measures_table(arms, settings), *found] if settings.measures else found


def measures_table(arms: Sequence[Arm], settings: CompareSettings) -> dict[str, Any]:
    """Means over seeds before and after training for the report."""
    about = [claim for claim in settings.claims if isinstance(claim, MeasureClaim)]
    claimed = {name for claim in about for name in (claim.measure, claim.worse_measure) if name}
    names = sorted(claimed | set(settings.shown)) or list(arms[0].measures)
    for name in names:
        if name not in arms[0].measures:
            raise UserError(f"nothing measured is called {name!r}", fix=nearest(name, arms[0].measures))
    rows = [
        [arm.name, *(f"{arm.measures[n].start.mean:.4g} → {arm.measures[n].final.mean:.4g}" for n in names)]
        for arm in arms
    ]
    return {"title": "Measured before → after training", "columns": ["arm", *names], "rows": rows}


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


def _samples(
    settings: CompareSettings, arms: Sequence[Arm], runner: Runner
) -> tuple[str, str, dict[str, str]]:
    """Prompt, the source model's continuation and every arm's; empty of what has no language-model head."""
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
        if checkpoint.base_only:  # a classifier, or an encoder: it has no words
            return ""
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
