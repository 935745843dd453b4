"""Advice: measure the cheap initialisers on a slice of the text and name the best, with how sure that is."""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

from pydantic import Field

from warmstart.corpus.settings import CorpusSettings
from warmstart.evaluation.results import ComparisonResult
from warmstart.foundation.errors import UserError
from warmstart.foundation.progress import note
from warmstart.foundation.settings import Settings
from warmstart.recipes.advice import Advice, judged
from warmstart.recipes.arms import TUNING_SEED, ArmSettings, read_curve, start_arm
from warmstart.recipes.table import WorldSettings, registered, starting_arms

if TYPE_CHECKING:
    from warmstart.recipes.runner import Runner

NOT_CHEAP = {
    "clp": "it reads a helper model of the target language",
    "cw2v": "it trains its mixture first",
    "hyper-ofa": "it trains a network first",
    "omp": "it reads a donor model with the new tokenizer",
    "zett": "it applies a network that is trained first",
}
"""Initialisers that are tried only when they are named, and why."""
_FEWEST_STEPS = 8
_TUNE_FRACTION = 0.5


class AdviseSettings(Settings):
    """Which initialiser is best for a source and a text: short runs at equal tokens within a time budget."""

    source: str = Field(min_length=1)
    """Checkpoint whose vocabulary is to be replaced: folder, hub id or named source."""
    corpus: CorpusSettings
    """Text of the new vocabulary."""
    tokenizer: str | None = None
    """The new tokenizer; one like the source's is trained on the text where not given."""
    vocab_size: int = Field(default=8000, ge=64)
    """Tokens of the tokenizer that is trained."""
    source_corpus: CorpusSettings | None = None
    """Text of the source's vocabulary, for initialisers that learn from it."""
    dictionary: str | None = None
    """Word pairs source–target: a file with tabs or a named set such as `dictionary/en-de`."""
    parallel: str | None = None
    """Sentence pairs source–target: a file with tabs or a named set such as `multi30k/en-de`."""
    initialisers: list[str] = []
    """Initialisers to try; where not given, all that need no other model and train no network."""
    options: dict[str, dict[str, Any]] = {}
    """Initialiser -> its own settings."""
    budget_seconds: float = Field(default=600.0, gt=0)
    """Seconds that all of it may take, about: the length of the runs is chosen from a first short one."""
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1)
    """Seeds of the runs; one seed says nothing about how sure the advice is."""
    learning_rates: list[float] = Field(default=[5e-4, 2e-3], min_length=1)
    """Rates of which each initialiser gets its own best, tried on another seed."""
    slice_bytes: int = Field(default=4_000_000, ge=1)
    """UTF-8 bytes of the text that are used."""
    block_size: int = Field(default=128, ge=8)
    """Tokens per training block."""
    per_device_train_batch_size: int = Field(default=8, ge=1)
    """Blocks per training step."""
    eval_max_bytes: int = Field(default=16384, ge=1)
    """UTF-8 bytes of held-out text on which is measured."""


def advise(settings: AdviseSettings, runner: Runner) -> Advice:
    """Measure and recommend.

    Every candidate starts from the same source with the same tokenizer and trains on the same slice for the
    same tokens with its own learning rate, on the comparison harness; the tokens are the most that fit the
    budget, rounded down to a power of two so that a repeated call finds its runs in the cache.

    Raises:
        UserError: Nothing can be tried, or the budget is too small for runs that say anything.
    """
    started = time.perf_counter()
    slice_ = settings.corpus.model_copy(update={"max_bytes": _smaller(settings.corpus, settings.slice_bytes)})
    tokenizer = settings.tokenizer or _forged(settings, slice_, runner)
    world = WorldSettings(
        source=settings.source,
        tokenizer=tokenizer,
        corpus=slice_,
        options=settings.options,
        **{
            key: getattr(settings, key)
            for key in ("source_corpus", "dictionary", "parallel")
            if getattr(settings, key) is not None
        },
    )
    arms, left_out = _started(settings, world, runner, started)
    tokens = _affordable(settings, world, next(iter(arms.values())), len(arms), runner, started)
    compared = _comparison(settings, world, arms, tokens)
    output = runner.step("compare", compared, name="advice")
    result = ComparisonResult.model_validate_json((output / "result.json").read_text(encoding="utf-8"))
    return judged(
        result,
        {name: arm.describe for name, arm in arms.items()},
        left_out,
        tokenizer=tokenizer,
        seconds=time.perf_counter() - started,
        command=lambda name: _command(settings, arms[name], tokenizer),
    )


def _smaller(corpus: CorpusSettings, limit: int) -> int:
    return limit if corpus.max_bytes is None else min(limit, corpus.max_bytes)


def _forged(settings: AdviseSettings, corpus: CorpusSettings, runner: Runner) -> str:
    wanted = {"corpus": _plain(corpus), "like": settings.source, "vocab_size": settings.vocab_size}
    return str(runner.step("tokenizer", wanted, name="new tokenizer"))


def _plain(corpus: CorpusSettings) -> dict[str, Any]:
    return corpus.model_dump(mode="json", exclude_unset=True)


def _started(
    settings: AdviseSettings, world: WorldSettings, runner: Runner, started: float
) -> tuple[dict[str, ArmSettings], dict[str, str]]:
    """The candidates that can start, within half of the budget; the others with the reason."""
    from warmstart.vocabulary.rows._base import initialisers

    methods, left_out = settings.initialisers, {}
    if not methods:
        known = registered()
        left_out = {name: f"{NOT_CHEAP[name]}; name it to try it" for name in known if name in NOT_CHEAP}
        methods = [name for name in known if name not in NOT_CHEAP]
    for name in methods:
        initialisers.get(name, where="advise")
    arms: dict[str, ArmSettings] = {}
    for name in methods:
        if arms and time.perf_counter() - started > settings.budget_seconds / 2:
            left_out[name] = "half of the budget was spent before its turn"
            continue
        found, reasons = starting_arms("advice", world, [name], settings.seeds[0], runner)
        arms |= found
        left_out |= reasons
    if not arms:
        name, reason = next(iter(left_out.items()))
        raise UserError(f"no initialiser can be tried; {name}: {reason}", where="advise")
    return arms, left_out


def _training(settings: AdviseSettings, tokens: int) -> dict[str, Any]:
    return {
        "max_tokens": tokens,
        "block_size": settings.block_size,
        "per_device_train_batch_size": settings.per_device_train_batch_size,
        "eval_points": [0.5],
    }


def _affordable(
    settings: AdviseSettings,
    world: WorldSettings,
    arm: ArmSettings,
    arms: int,
    runner: Runner,
    started: float,
) -> int:
    """Tokens per run that fit into what is left of the budget, from the speed of a first short run."""
    step = settings.block_size * settings.per_device_train_batch_size
    fewest = step * _FEWEST_STEPS
    values = _training(settings, fewest) | {
        "source": str(start_arm(arm, settings.seeds[0], runner, "speed")),
        "corpus": _plain(world.corpus),
        "eval_max_bytes": settings.eval_max_bytes,
        "learning_rate": settings.learning_rates[0],
        "seed": TUNING_SEED,
        "keep": False,
    }
    output = runner.step("train", values, name="speed of training")
    curve = read_curve(output)
    whole = float(json.loads((output.parent / "step.json").read_text(encoding="utf-8"))["seconds"])
    training = max(curve.points[-1].seconds, 1e-9)
    rates = len(settings.learning_rates) if len(settings.learning_rates) > 1 else 0
    around = max(0.0, whole - training) * (rates + len(settings.seeds)) * arms
    per_token = training / curve.points[-1].tokens * (rates * _TUNE_FRACTION + len(settings.seeds)) * arms
    left = settings.budget_seconds - (time.perf_counter() - started) - around
    if left < per_token * fewest:
        needed = settings.budget_seconds - left + per_token * fewest
        raise UserError(
            f"a budget of {settings.budget_seconds:.0f} seconds is too small for {arms} initialisers with "
            f"{len(settings.seeds)} seeds: about {needed:.0f} are needed",
            where="advise",
            fix="raise budget_seconds, name fewer initialisers, or give fewer seeds",
        )
    tokens = int(step * 2 ** math.floor(math.log2(left / per_token / step)))
    note(f"  {arms} initialisers, {tokens:,} tokens per run")
    return tokens


def _comparison(
    settings: AdviseSettings, world: WorldSettings, arms: dict[str, ArmSettings], tokens: int
) -> dict[str, Any]:
    return {
        "title": "advice",
        "corpus": _plain(world.corpus),
        "arms": {name: arm.model_dump(exclude_unset=True) for name, arm in arms.items()},
        "baseline": "mean-of-pieces" if "mean-of-pieces" in arms else next(iter(arms)),
        "train": _training(settings, tokens) | {"learning_rate": settings.learning_rates[0]},
        "learning_rates": settings.learning_rates,
        "extend": 0,
        "tune_fraction": _TUNE_FRACTION,
        "seeds": settings.seeds,
        "eval_max_bytes": settings.eval_max_bytes,
        "scale": "advice",
    }


def _command(settings: AdviseSettings, arm: ArmSettings, tokenizer: str) -> str:
    method = arm.start["initialiser"]
    words = ["warmstart transplant", settings.source, f"--tokenizer {tokenizer}"]
    if isinstance(method, str):
        words.append(f"--initialiser {method}")
    else:
        words.append(f"--initialiser {method['name']}")
        words += [f"--set initialiser.{key}={value}" for key, value in method.items() if key != "name"]
    for key in ("corpus", "source_corpus", "dictionary", "parallel"):
        if key in arm.start:
            value = settings.corpus if key == "corpus" else getattr(settings, key)
            shown = value.path if isinstance(value, CorpusSettings) else value
            words.append(f"--{key.replace('_', '-')} {shown}")
    return " ".join([*words, "-o model"])
