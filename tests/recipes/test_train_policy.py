"""A model that answers sums learns from what its answers earn, and the course of it is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "vocabulary"))
from vocab_families import FAMILIES
from vocab_tokenizers import plain

from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.evaluation import rollouts as measured
from warmstart.foundation.errors import UserError
from warmstart.recipes.arms import read_numbers
from warmstart.recipes.runner import Runner

PROBLEMS = {
    "path": "arithmetic",
    "options": {"documents": 300, "steps": 1, "largest": 1, "formats": ["answer"]},
}
GIVEN = {
    "corpus": PROBLEMS,
    "block_size": 112,
    "per_device_train_batch_size": 4,
    "learning_rate": 3e-3,
    "max_steps": 4,
    "eval_points": [0.5],
    "eval_max_bytes": 1024,
    "objective": {"name": "policy-gradient", "max_new_tokens": 16, "samples": 2, "format_weight": 0.5},
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that has learned to answer, more or less."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("answering")
    tokenizer = plain("bpe", 420, 0)
    kind, _, _, sizes = FAMILIES["qwen3"]
    ids = {"bos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
    sizes = {**sizes, "max_position_embeddings": 160, "initializer_range": 0.2}
    config = AutoConfig.for_model(kind, **sizes, vocab_size=len(tokenizer), tie_word_embeddings=True, **ids)
    torch.manual_seed(0)
    save_checkpoint(
        folder / "random",
        AutoModelForCausalLM.from_config(config),
        tokenizer,
        lineage=Lineage.of("test"),
    )
    taught = {
        "source": str(folder / "random"),
        "corpus": PROBLEMS,
        "block_size": 112,
        "learning_rate": 1e-2,
        "max_steps": 40,
        "eval_points": [],
        "eval_max_bytes": 1024,
    }
    return Runner(folder / "cache").step("train-answers", taught)


def points_of(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "policy.json").read_text())["points"]
    return found


def test_a_run_leaves_its_course(tmp_path: Path, answering: Path) -> None:
    runner = Runner(tmp_path / "cache")
    given = {**GIVEN, "source": str(answering)}
    done = runner.step("train-policy", given)
    points = points_of(done)
    assert [point["step"] for point in points] == [0, 2, 4]
    curve = json.loads((done / "training.json").read_text())["points"]
    missed = [1 - point["found"]["reward"] / 1.5 for point in points]
    assert missed == [point["bpb"] for point in curve]
    assert points[0]["found"]["kl"] == pytest.approx(0, abs=1e-6) and points[-1]["found"]["kl"] > 1e-4
    assert 0.5 < points[0]["found"]["ended"] <= 1 and 2 < points[0]["found"]["length"] <= 16
    lineage = resolve(str(done)).lineage
    assert lineage is not None and lineage.measured["accuracy after"] == points[-1]["found"]["accuracy"]

    course = read_numbers(runner.step("policy-run", {"source": str(done)}))
    rewards = [point["found"]["reward"] for point in points]
    lengths = [point["found"]["length"] for point in points]
    assert course["dip"] == rewards[0] - min(rewards)
    assert course["shortest_length"] == min(lengths) / lengths[0]
    before = read_numbers(runner.step("policy-run", {"source": str(answering)}))
    assert (before["dip"], before["shortest_length"], before["kl"]) == (0, 1, 0)

    settings = {"max_new_tokens": 16, "format_weight": 0.5, "eval_split": "valid"}
    asked = {"corpus": PROBLEMS, "eval_max_bytes": 1024, "context_length": 112, **settings}
    for source, point in ((answering, points[0]), (done, points[-1])):
        alone = read_numbers(runner.step("rollouts", {"source": str(source), **asked}))
        assert alone == {k: v for k, v in point["found"].items() if k != "kl"}, "the same answers"

    short = runner.step("train-policy", {**given, "keep": False})
    assert points_of(short) == points and not (short / "config.json").exists()


def test_a_killed_run_tells_the_same_course(
    tmp_path: Path, answering: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {**GIVEN, "source": str(answering), "save_steps": 3, "eval_points": [0.25, 0.5, 0.75]}
    whole = Runner(tmp_path / "whole").step("train-policy", given)
    original, calls = measured.rollouts, [0]

    def killed(*args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5:  # after the last step, behind the checkpoint of step 3
            raise MemoryError
        return original(*args, **options)

    monkeypatch.setattr(measured, "rollouts", killed)
    with pytest.raises(MemoryError):
        Runner(tmp_path / "part").step("train-policy", given)
    (log,) = (tmp_path / "part").glob("train-policy-*/run/rollouts.jsonl")
    lines = log.read_bytes()
    assert lines.count(b"\n") == 4
    log.write_bytes(lines + lines.splitlines(keepends=True)[0])  # measured, and killed before it was saved
    part = Runner(tmp_path / "part").step("train-policy", given)
    assert calls[0] == 6, "only what was lost is measured again"
    assert points_of(part) == points_of(whole)


def test_what_cannot_answer_is_refused(tmp_path: Path, answering: Path) -> None:
    runner = Runner(tmp_path / "cache")
    with pytest.raises(UserError, match="'causal' reads answers and writes none"):
        runner.step("train-policy", {**GIVEN, "source": str(answering), "objective": "causal"})
    wrong = {"name": "policy-gradient", "max_new_tokens": 4, "marker_of_result": "It is"}
    with pytest.raises(UserError, match="has no result behind 'It is'"):
        runner.step("train-policy", {**GIVEN, "source": str(answering), "objective": wrong})
