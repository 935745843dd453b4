"""Advice: what is measured is what is said, and how sure it is follows from the seeds."""

from __future__ import annotations

import math
import random
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from warmstart.evaluation import interval
from warmstart.evaluation.curves import Curve, CurvePoint
from warmstart.evaluation.results import Arm, ComparisonResult
from warmstart.foundation.errors import UserError
from warmstart.recipes.advice import Advice, judged
from warmstart.recipes.advise import NOT_CHEAP, AdviseSettings, advise
from warmstart.recipes.runner import Runner
from warmstart.vocabulary.rows._base import initialisers

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
from cli_runner import call

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = ["the", "cat", "dog", "house", "sees", "small", "green", "big", "old", "runs", "over", "river"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root, rng = tmp_path_factory.mktemp("advise"), random.Random(1)
    text = root / "text.txt"
    text.write_text("".join(" ".join(rng.choice(WORDS) for _ in range(40)) + ".\n" for _ in range(120)))
    runner = Runner(root / "cache")
    corpus = {"path": str(text), "unit": "line", "valid_fraction": 0.15, "test_fraction": 0.15}
    tokenizer = runner.step("tokenizer", {"corpus": corpus, "vocab_size": 300})
    config = {"model_type": "llama", **SIZES}
    start = runner.step("initialise", {"tokenizer": str(tokenizer), "config": config})
    return {"runner": runner, "corpus": corpus, "source": str(start)}


def settings(source: dict[str, Any], **more: Any) -> AdviseSettings:
    given = {
        "source": source["source"],
        "corpus": source["corpus"],
        "vocab_size": 320,
        "initialisers": ["mean-of-pieces", "random", "wechsel"],
        "learning_rates": [1e-3],
        "seeds": [0, 1],
        "block_size": 32,
        "per_device_train_batch_size": 2,
        "eval_max_bytes": 1000,
        "budget_seconds": 100000,
    }
    return AdviseSettings.parse(given | more)


def test_advice_is_what_was_measured(source: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warmstart.recipes.advise._affordable", lambda *_: 512)
    found = advise(settings(source), source["runner"])
    names = [candidate.initialiser for candidate in found.candidates]
    assert sorted(names) == ["mean-of-pieces", "random"] and found.recommended == names[0]
    assert set(found.left_out) == {"wechsel"} and "source corpus" in found.left_out["wechsel"]
    assert found.tokens == 512
    for candidate in found.candidates:
        best = found.candidates[0].final.per_seed
        gaps = [own - other for own, other in zip(candidate.final.per_seed, best, strict=True)]
        assert candidate.behind == interval(gaps) and candidate.seconds > 0
        assert candidate.tied == (candidate is not found.candidates[0] and candidate.behind.low <= 0)
    assert (Path(found.tokenizer) / "tokenizer.json").is_file()
    words = shlex.split(found.command)
    assert words[:3] == ["warmstart", "transplant", source["source"]] and words[-2:] == ["-o", "model"]
    assert words[words.index("--initialiser") + 1] == found.recommended
    assert Advice.model_validate_json(found.model_dump_json()) == found


def test_the_length_of_runs_follows_the_budget_and_a_small_one_is_refused(source: dict[str, Any]) -> None:
    from warmstart.recipes.advise import _affordable
    from warmstart.recipes.arms import ArmSettings
    from warmstart.recipes.table import WorldSettings

    chosen = settings(source)
    tokenizer = source["runner"].step(
        "tokenizer", {"corpus": source["corpus"], "like": source["source"], "vocab_size": 320}
    )
    world = WorldSettings(source=source["source"], tokenizer=str(tokenizer), corpus=source["corpus"])
    start = {"type": "transplant", "source": source["source"], "tokenizer": str(tokenizer)}

    def tokens(arms: int, **more: Any) -> int:
        import time

        values = settings(source, **more)
        arm = ArmSettings(start=start)
        return _affordable(values, world, arm, arms, source["runner"], time.perf_counter())

    many = tokens(2)
    assert many >= 32 * 2 * 8 and math.log2(many / 64).is_integer(), "a power of two of whole steps"
    assert tokens(2, budget_seconds=10 * chosen.budget_seconds) > many > tokens(40)
    with pytest.raises(UserError, match=r"a budget of 1 seconds is too small for 2 .*about \d+ are needed"):
        tokens(2, budget_seconds=1)


def arm(name: str, half: float, final: list[float], seconds: float) -> Arm:
    curves = [
        Curve(
            seed=seed,
            points=[
                CurvePoint(step=i, tokens=i * 100, seconds=0, flops=0, bpb=bpb)
                for i, bpb in enumerate([9.0, half, last])
            ],
        )
        for seed, last in enumerate(final)
    ]
    return Arm(
        name=name,
        description="",
        learning_rate=1e-3,
        learning_rates={},
        curves=curves,
        final_bpb=interval(final),
        savings=[],
        extra={"start seconds": seconds},
    )


def advice(*arms: Arm) -> Advice:
    result = ComparisonResult(
        name="a",
        title="",
        sentence="",
        verdict="not run",
        claims=[],
        scale="advice",
        date="",
        baseline=arms[0].name,
        arms=list(arms),
        seeds=list(range(len(arms[0].curves))),
    )
    given = {a.name: "" for a in arms}
    return judged(result, given, {}, tokenizer="t", seconds=1, command=lambda name: f"use {name}")


def test_a_lead_beyond_seed_noise_is_clear() -> None:
    found = advice(arm("slow", 5, [4.0, 4.2, 4.1], 1), arm("fast", 4, [3.0, 3.2, 3.1], 9))
    assert (found.recommended, found.sure, found.stable) == ("fast", "clear", True)
    assert "ahead by 1.000" in found.sentence and "3 seeds" in found.sentence
    assert found.command == "use fast" and not any(c.tied for c in found.candidates)


def test_a_lead_within_seed_noise_is_said_to_be_one() -> None:
    found = advice(
        arm("a", 4, [3.0, 3.4, 3.1], 9), arm("b", 3.5, [3.1, 3.2, 3.3], 1), arm("c", 5, [5, 5.4, 5.1], 0.1)
    )
    assert (found.recommended, found.sure, found.stable) == ("a", "tied", False)
    assert [c.initialiser for c in found.candidates if c.tied] == ["b"]
    assert "b takes the least time" in found.sentence and "longer runs may end differently" in found.sentence


def test_one_seed_or_one_candidate_makes_nothing_sure() -> None:
    alone = advice(arm("a", 4, [3.0, 3.1], 1))
    assert alone.sure == "no rival" and "nothing else was tried" in alone.sentence
    single = advice(arm("a", 4, [3.0], 1), arm("b", 5, [4.0], 1))
    assert single.sure == "one seed" and "With one seed nobody knows" in single.sentence


def test_what_is_not_cheap_is_named_with_its_reason() -> None:
    assert all(reason.startswith("it ") for reason in NOT_CHEAP.values())
    helpers = {entry.name for entry in initialisers if "helper" in entry.tags}
    assert helpers <= set(NOT_CHEAP), "those that need another model cannot be tried unasked"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"initialisers": ["focsu"]}, "did you mean 'focus'"),
        ({"initialisers": ["wechsel"]}, "no initialiser can be tried; wechsel: .*needs a source corpus"),
        ({"budget_seconds": 0}, "budget_seconds"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_bad_input_is_one_sentence(source: dict[str, Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        advise(settings(source, **more), source["runner"])


def test_the_command_line_refuses_bad_input_with_code_2_and_prints_json(
    source: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import json

    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path))
    monkeypatch.setattr("warmstart.recipes.advise._affordable", lambda *_: 64)
    corpus = source["corpus"]
    words = ["vocab", "advise", source["source"], "--vocab-size", "320", "--corpus", corpus["path"]]
    words += ["--corpus.unit", "line", "--corpus.valid-fraction", "0.15", "--corpus.test-fraction", "0.15"]
    words += ["--seeds", "0", "--learning-rates", "1e-3", "--block-size", "32", "--eval-max-bytes", "200"]
    refused = call(*words, "--initialisers", "focsu")
    assert refused.code == 2 and "did you mean 'focus'" in refused.err and "Traceback" not in refused.err
    missing = call("vocab", "advise", str(tmp_path / "nothing"), "--corpus", corpus["path"])
    assert missing.code == 2 and "does not exist" in missing.err
    done = call(*words, "--initialisers", "mean-of-pieces", "--json")
    assert done.code == 0
    found = json.loads(done.out)
    assert found["recommended"] == "mean-of-pieces" and found["sure"] == "no rival"
    assert len(found["candidates"]) == 1 and found["tokenizer"].startswith(str(tmp_path))
    shown = call(*words, "--initialisers", "mean-of-pieces")
    assert "Use mean-of-pieces" in shown.out and "warmstart transplant" in shown.out
