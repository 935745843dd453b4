"""The table: every initialiser of new rows in several worlds, on the comparison harness."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from warmstart.corpus.settings import CorpusSettings
from warmstart.evaluation.results import ComparisonResult, Interval
from warmstart.foundation.errors import UserError
from warmstart.foundation.progress import note
from warmstart.foundation.settings import Settings
from warmstart.recipes.arms import TUNING_SEED, ArmSettings, start_arm
from warmstart.recipes.table_result import Gold, TableResult, TableRow, TableWorld
from warmstart.training.settings import TrainSettings
from warmstart.vocabulary.gold import GoldCosines

if TYPE_CHECKING:
    from warmstart.foundation.registry import Entry
    from warmstart.recipes.runner import Runner

BASELINE = "scratch"
_DATA = ("corpus", "source_corpus", "dictionary", "parallel")
_BY_TAG = {"corpus": ("corpus",), "bilingual": ("source_corpus", "dictionary"), "parallel": ("parallel",)}


def registered() -> list[str]:
    """Names of all initialisers."""
    from warmstart.vocabulary.rows._base import initialisers

    return initialisers.names()


class WorldSettings(Settings):
    """One source and one text that it has to learn to read."""

    describe: str = ""
    """What moves where, in one line."""
    source: str
    """Checkpoint whose vocabulary is replaced."""
    tokenizer: str
    """The new tokenizer."""
    corpus: CorpusSettings
    """Text of the new vocabulary: what initialisers learn from and what all arms train on."""
    source_corpus: CorpusSettings | None = None
    """Text of the source's vocabulary, for initialisers that learn from it."""
    dictionary: str | None = None
    """Word pairs source–target, for initialisers that use them."""
    parallel: str | None = None
    """Sentence pairs source–target, for initialisers that use them."""
    truth: str | None = None
    """Plain text of a word cipher (`multi30k/en`): rows are then also compared with the gold rows."""
    options: dict[str, dict[str, Any]] = {}
    """Initialiser -> its own settings in this world, such as a helper model."""
    left_out: dict[str, str] = {}
    """Initialiser -> why it cannot take part here. Others that refuse are left out with their own words."""
    train: dict[str, Any] = {}
    """Training settings that differ from the shared ones, such as `objective`."""


class TableSettings(Settings):
    """Every initialiser in every world: bits per byte over training, gold rows, seconds and memory."""

    title: str = "Initialisers of new rows"
    """What the table shows, in one line."""
    worlds: dict[str, WorldSettings]
    """World name -> its source, texts and evidence."""
    initialisers: list[str] = Field(default_factory=registered)
    """Initialisers to compare; all registered ones where not given."""
    train: TrainSettings = TrainSettings(max_tokens=300_000, eval_points=[0.1, 0.25, 0.5])
    """Training of all arms; its evaluation points and the end are the table's columns."""
    learning_rates: list[float] = [5e-4, 1e-3, 2e-3]
    """Rates tried for each arm on another seed and the `valid` text, as in `compare`."""
    extend: int = 1
    """How often a grid may be extended while its best rate is at an edge."""
    tune_fraction: float = 0.3
    """Share of the token budget that a tuning run gets."""
    seeds: list[int] = [0, 1, 2]
    """Seeds of the reported runs."""
    eval_max_bytes: int = 32768
    """UTF-8 bytes of held-out text measured at each point."""
    scale: str = "own"
    """Name of the scale, shown with the table."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        from warmstart.vocabulary.rows._base import initialisers

        if not self.worlds or not self.initialisers:
            raise UserError("a table needs at least one world and one initialiser", where="table")
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or TUNING_SEED in self.seeds:
            raise UserError(f"seeds must be different numbers other than {TUNING_SEED}", where="table")
        worlds = self.worlds.values()
        for name in [*self.initialisers, *(n for w in worlds for n in (*w.options, *w.left_out))]:
            initialisers.get(name, where="table")
        return self


def run_table(settings: TableSettings, runner: Runner) -> TableResult:
    """Run every world.

    Every arm starts from the same source with the same new tokenizer and the same text, at equal tokens, with
    a learning rate of its own. An initialiser gets the evidence that its tags ask for (text, dictionary,
    sentence pairs), and all that the world has where it asks for more; one that still refuses is left out,
    with its own words as the reason.

    Raises:
        UserError: A world in which no initialiser can run.
    """
    worlds = [run_world(name, world, settings, runner) for name, world in settings.worlds.items()]
    from warmstart.evaluation.machine import machine

    return TableResult(
        title=settings.title,
        scale=settings.scale,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        seeds=settings.seeds,
        worlds=worlds,
        machine=machine(),
    )


def run_world(name: str, world: WorldSettings, settings: TableSettings, runner: Runner) -> TableWorld:
    """Compare all initialisers that can start in one world."""
    arms, left_out = starting_arms(name, world, settings.initialisers, settings.seeds[0], runner)
    if not arms:
        first = next(iter(left_out.items()))
        raise UserError(f"no initialiser can start: {first[0]}: {first[1]}", where=f"world {name}")
    scratch = {"type": "initialise", "like": world.source, "tokenizer": world.tokenizer}
    compared = {
        "title": f"{settings.title}: {world.describe or name}",
        "corpus": world.corpus.model_dump(mode="json", exclude_unset=True),
        "arms": {BASELINE: {"start": scratch, "describe": "Nothing reused"}}
        | {arm: chosen.model_dump(exclude_unset=True) for arm, chosen in arms.items()},
        "baseline": BASELINE,
        "train": settings.train.model_dump(mode="json", exclude_unset=True) | world.train,
        "scale": "table",
    }
    for key in ("learning_rates", "extend", "tune_fraction", "seeds", "eval_max_bytes"):
        compared[key] = getattr(settings, key)
    output = runner.step("compare", compared, name=f"table: {name}")
    result = ComparisonResult.model_validate_json((output / "result.json").read_text(encoding="utf-8"))
    rows = [_row(arm.name, result, arms.get(arm.name), world.truth, settings, runner) for arm in result.arms]
    return TableWorld(
        name=name,
        describe=world.describe,
        rows=rows,
        left_out=left_out,
        tokens=[point.tokens for point in result.arms[0].curves[0].points],
        data=result.data,
    )


def starting_arms(
    name: str, world: WorldSettings, methods: Sequence[str], seed: int, runner: Runner
) -> tuple[dict[str, ArmSettings], dict[str, str]]:
    """The initialisers that can start, as arms; and the others with the reason."""
    from warmstart.vocabulary.rows._base import initialisers

    arms: dict[str, ArmSettings] = {}
    left_out: dict[str, str] = {}
    for method in methods:
        if method in world.left_out:
            left_out[method] = world.left_out[method]
            continue
        tried = None
        for arm in _candidates(initialisers.get(method), world):
            try:
                start_arm(arm, seed, runner, f"{name}, {method}")
            except UserError as error:
                tried = tried or error.sentence
                continue
            arms[method] = arm
            break
        else:
            left_out[method] = tried or "it cannot start"
            note(f"  {name}: {method} is left out: {left_out[method]}")
    return arms, left_out


def _candidates(entry: Entry[Any], world: WorldSettings) -> list[ArmSettings]:
    """The arm with the evidence that the method's tags ask for, then with all that the world has."""
    there = [key for key in _DATA if getattr(world, key) is not None]
    asked = [key for key in there if any(key in _BY_TAG[tag] for tag in entry.tags & set(_BY_TAG))]
    found = []
    for keys in [asked] if asked == there else [asked, there]:
        evidence = world.model_dump(mode="json", include=set(keys), exclude_unset=True)
        options = world.options.get(entry.name, {})
        start = {
            "type": "transplant",
            "source": world.source,
            "tokenizer": world.tokenizer,
            "initialiser": {"name": entry.name, **options} if options else entry.name,
            **evidence,
        }
        found.append(ArmSettings(start=start, describe=", ".join(keys).replace("_", " ")))
    return found


def _row(
    name: str,
    result: ComparisonResult,
    arm: ArmSettings | None,
    truth: str | None,
    settings: TableSettings,
    runner: Runner,
) -> TableRow:
    from warmstart.evaluation import interval
    from warmstart.recipes.cost import Cost

    measured = next(a for a in result.arms if a.name == name)
    points = zip(*(curve.points for curve in measured.curves), strict=True)
    row = TableRow(
        initialiser=name,
        data=arm.describe if arm else "",
        learning_rate=measured.learning_rate,
        bpb=[interval([point.bpb for point in same]) for same in points],
    )
    if arm is None:
        return row
    start = {key: value for key, value in arm.start.items() if key != "type"}
    output = runner.step("cost", start | {"seed": settings.seeds[0]}, name=f"cost of {name}")
    cost = Cost.model_validate_json((output / "cost.json").read_text(encoding="utf-8"))
    gold = None
    if truth is not None:
        found = [_gold(arm, seed, truth, runner) for seed in settings.seeds]
        gold = Gold(
            tokens=found[0].tokens,
            **{
                key: _mean([getattr(f, key) for f in found], interval)
                for key in ("cosine", "centred", "hidden")
            },
        )
    return row.model_copy(update={"seconds": cost.seconds, "peak_mb": cost.peak_mb, "gold": gold})


def _mean(values: list[float | None], interval: Any) -> Interval | None:
    return None if any(v is None for v in values) else interval(values)


def _gold(arm: ArmSettings, seed: int, truth: str, runner: Runner) -> GoldCosines:
    """How near an arm's rows are to the gold rows before training."""
    made = start_arm(arm, seed, runner, "gold rows")
    settings = {"source": str(made), "reference": arm.start["source"], "truth": truth}
    output = runner.step("gold-rows", settings, name="gold rows")
    return GoldCosines.model_validate_json((output / "gold.json").read_text(encoding="utf-8"))


def write_table(result: TableResult, folder: Path) -> None:
    """`table.json` and `report.html`."""
    from warmstart.recipes.table_result import shown
    from warmstart.report.tables import write_tables

    (folder / "table.json").write_text(result.model_dump_json(indent=1), encoding="utf-8")
    seeds = len(result.seeds)
    note = (
        "Bits per byte of held-out text, before training and after equal numbers of tokens; every row has a "
        "learning rate of its own, chosen on another seed. Seconds and memory are those of the transplant "
        "alone, in a process of its own. "
    )
    note += f"Mean over {seeds} seeds ± half of the 95 % interval." if seeds > 1 else "One seed."
    write_tables(folder / "report.html", result.title, shown(result), notes=[note])
