"""A sentence encoder in a new language: retrieval of translations by each initialiser, before and after."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.evaluation.retrieval import Retrieval
from warmstart.foundation.errors import UserError
from warmstart.foundation.progress import note
from warmstart.foundation.settings import Settings
from warmstart.recipes.arms import TUNING_SEED, ArmSettings, start_arm
from warmstart.recipes.distil import DistilOptions
from warmstart.recipes.table import WorldSettings, registered, starting_arms

if TYPE_CHECKING:
    from warmstart.recipes.runner import Runner

UNCHANGED = "unchanged"


class SentencesSettings(Settings):
    """A sentence encoder learns another language: every initialiser, without and with training."""

    title: str = "A sentence encoder in another language"
    """What is shown, in one line."""
    source: str
    """The sentence encoder; it is also the teacher, and reads the original sentences."""
    tokenizer: str
    """Tokenizer of the new language."""
    corpus: CorpusSettings
    """Text of the new language, for initialisers."""
    source_corpus: CorpusSettings | None = None
    """Text of the source's language, for initialisers."""
    dictionary: str | None = None
    """Word pairs source–target, for initialisers."""
    parallel: str
    """Sentence pairs source–target: train to learn from, valid to choose rates, test to measure."""
    initialisers: list[str] = Field(default_factory=registered)
    """Initialisers to compare; all registered ones where not given."""
    options: dict[str, dict[str, Any]] = {}
    """Initialiser -> its own settings."""
    left_out: dict[str, str] = {}
    """Initialiser -> why it does not take part."""
    train: DistilOptions = DistilOptions(max_seconds=300)
    """How the students are trained; `learning_rate` and `seed` are set for each."""
    learning_rates: list[float] = Field(default=[2e-4, 5e-4, 1e-3], min_length=1)
    """Rates of which each arm gets its own best, tried on another seed and the `valid` pairs."""
    tune_fraction: float = Field(default=0.2, gt=0, le=1)
    """Share of the budget that a tuning run gets."""
    seeds: list[int] = Field(default=[0], min_length=1)
    """Seeds of the reported runs."""
    max_pairs: int | None = Field(default=None, gt=0)
    """Training pairs at most, chosen by hash."""
    max_test_pairs: int | None = Field(default=None, gt=0)
    """Test pairs, and valid pairs, at most."""


class SentencesRow(BaseModel):
    """One way to read the new language."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    arm: str
    """Initialiser, or `unchanged`: the source with its own vocabulary."""
    given: str
    """Evidence that the initialiser was given."""
    learning_rate: float
    """Rate chosen on another seed."""
    before: list[Retrieval]
    """Without training, one per seed."""
    after: list[Retrieval]
    """With training, one per seed."""
    steps: list[int]
    """Steps of each run."""


class SentencesResult(BaseModel):
    """All arms."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    title: str
    seeds: list[int]
    rows: list[SentencesRow]
    left_out: dict[str, str]
    """Initialiser -> why it did not take part."""
    machine: dict[str, Any]
    """Processor, cores, versions."""


def run_sentences(settings: SentencesSettings, runner: Runner) -> SentencesResult:
    """Measure every arm.

    Each student is measured, and trained by distillation from the unchanged source
    ([`distil`][warmstart.recipes.distil.distil]), with equal data and budget. The source with its own
    vocabulary is an arm like the others: it shows what a new vocabulary costs and what it brings.

    Raises:
        UserError: No initialiser can start, or a reported seed is the one that chooses rates.
    """
    from warmstart.evaluation.machine import machine

    if TUNING_SEED in settings.seeds or len(set(settings.seeds)) != len(settings.seeds):
        raise UserError(f"seeds must be different numbers other than {TUNING_SEED}", where="sentences")
    keys = ("source", "tokenizer", "corpus", "source_corpus", "dictionary", "parallel", "options", "left_out")
    world = WorldSettings.parse({key: v for key in keys if (v := getattr(settings, key)) is not None})
    arms, left_out = starting_arms("sentences", world, settings.initialisers, settings.seeds[0], runner)
    if not arms:
        name, reason = next(iter(left_out.items()))
        raise UserError(f"no initialiser can start: {name}: {reason}", where="sentences")
    rows = [_row(UNCHANGED, None, settings, runner)]
    rows += [_row(name, arm, settings, runner) for name, arm in arms.items()]
    return SentencesResult(
        title=settings.title, seeds=settings.seeds, rows=rows, left_out=left_out, machine=machine()
    )


def _row(name: str, arm: ArmSettings | None, settings: SentencesSettings, runner: Runner) -> SentencesRow:
    def start(seed: int) -> str:
        return settings.source if arm is None else str(start_arm(arm, seed, runner, name))

    rate = _rate(name, start, settings, runner)
    before = [_measured(start(seed), "test", settings, runner) for seed in settings.seeds]
    made = [_trained(name, start(seed), rate, seed, 1.0, settings, runner) for seed in settings.seeds]
    after = [_measured(str(path), "test", settings, runner) for path in made]
    note(f"  {name}: accuracy {before[0].accuracy:.3f} before, {after[0].accuracy:.3f} after training")
    return SentencesRow(
        arm=name,
        given=arm.describe if arm else "",
        learning_rate=rate,
        before=before,
        after=after,
        steps=[json.loads((path / "distil.json").read_text(encoding="utf-8"))["steps"] for path in made],
    )


def _rate(name: str, start: Callable[[int], str], settings: SentencesSettings, runner: Runner) -> float:
    """The rate with the best mean reciprocal rank on the valid pairs after a short run."""
    if len(settings.learning_rates) == 1:
        return settings.learning_rates[0]
    found = {}
    for rate in settings.learning_rates:
        made = _trained(name, start(TUNING_SEED), rate, TUNING_SEED, settings.tune_fraction, settings, runner)
        measured = _measured(str(made), "valid", settings, runner)
        found[rate] = measured.mrr + measured.mrr_back
    return max(found, key=lambda rate: found[rate])


def _trained(
    name: str, start: str, rate: float, seed: int, share: float, settings: SentencesSettings, runner: Runner
) -> Path:
    train = settings.train.model_dump(mode="json", exclude_unset=True)
    if train.get("max_steps"):
        train["max_steps"] = max(1, int(train["max_steps"] * share))
    if train.get("max_seconds"):
        train["max_seconds"] *= share
    given = train | {
        "source": start,
        "teacher": settings.source,
        "parallel": settings.parallel,
        "max_pairs": settings.max_pairs,
        "learning_rate": rate,
        "seed": seed,
    }
    return runner.step("distil", given, name=f"{name}, rate {rate:g}, seed {seed}")


def _measured(source: str, split: str, settings: SentencesSettings, runner: Runner) -> Retrieval:
    given = {
        "source": source,
        "other": settings.source,
        "parallel": settings.parallel,
        "split": split,
        "max_pairs": settings.max_test_pairs,
        "max_length": settings.train.max_length,
    }
    output = runner.step("retrieve", given, name=f"retrieval, {split}")
    return Retrieval.model_validate_json((output / "retrieval.json").read_text(encoding="utf-8"))


def shown(result: SentencesResult) -> dict[str, Any]:
    """The result as one plain table, the best after training first."""
    parts = ("accuracy", "accuracy_back", "mrr", "mrr_back")
    heads = ("to original", "from original", "MRR to", "MRR from")
    columns = [
        "arm",
        *(f"{head} {when}" for when in ("before", "after") for head in heads),
        "steps",
        "rate",
        "given",
    ]

    def mean(found: list[Retrieval], part: str) -> float:
        return round(sum(getattr(one, part) for one in found) / len(found), 4)

    rows: list[list[Any]] = [
        [
            row.arm,
            *(mean(found, part) for found in (row.before, row.after) for part in parts),
            round(sum(row.steps) / len(row.steps)),
            row.learning_rate,
            row.given,
        ]
        for row in result.rows
    ]
    rows.sort(key=lambda row: -row[7] - row[8])
    pairs = result.rows[0].before[0].pairs
    return {
        "title": f"Accuracy and mean reciprocal rank among {pairs:,} sentences",
        "note": [f"{name} is left out: {reason}" for name, reason in sorted(result.left_out.items())],
        "columns": columns,
        "rows": rows,
    }


def write_sentences(result: SentencesResult, folder: Path) -> None:
    """`sentences.json` and `report.html`."""
    from warmstart.report.tables import write_tables

    (folder / "sentences.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    line = "Each sentence of the new language looks for its original, read by the unchanged source, and back."
    write_tables(folder / "report.html", result.title, [shown(result)], notes=[line])
