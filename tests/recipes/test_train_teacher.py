"""Step `train` with a teacher: it is found by name, known by content, and written into the lineage."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "training"))
sys.path.append(str(Path(__file__).parents[1] / "vocabulary"))
import training_tiny as tiny
from training_taught import teacher
from vocab_tokenizers import plain

from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.foundation.errors import UserError
from warmstart.recipes.runner import Runner, run_recipe
from warmstart.recipes.schema import Recipe


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    for name, model in (("student", tiny.llama()), ("teacher", teacher())):
        save_checkpoint(tmp_path / name, model, tiny.byte_tokenizer(), lineage=Lineage.of("test"))
    (tmp_path / "text.txt").write_text("\n".join(f"line {i} of some text, and {i * 7}" for i in range(400)))
    return {
        "source": str(tmp_path / "student"),
        "corpus": {"path": str(tmp_path / "text.txt"), "unit": "line"},
        "objective": {"name": "distillation", "teacher": str(tmp_path / "teacher"), "until": 0.5},
        "block_size": 24,
        "max_steps": 6,
        "eval_max_bytes": 400,
        "eval_points": [0.5],
    }


def test_the_teacher_is_a_parent_and_costs_while_it_teaches(given: dict[str, Any], tmp_path: Path) -> None:
    output = Runner(tmp_path / "cache").step("train", given)
    trained = resolve(output)
    assert [(p.role, p.name) for p in trained.lineage.parents] == [
        ("source", "student"),
        ("teacher", "teacher"),
    ]
    assert trained.lineage.parents[1].fingerprint == resolve(tmp_path / "teacher").fingerprint
    points = json.loads((output / "training.json").read_text())["points"]
    first, second = (b["flops"] - a["flops"] for a, b in pairwise(points))
    assert first > 1.3 * second > 0


def test_a_step_is_known_by_its_teachers_content(given: dict[str, Any], tmp_path: Path) -> None:
    """A copy elsewhere is the same step, other weights in its place are another; steps name each other."""
    runner = Runner(tmp_path / "cache")
    first = runner.step("train", given)
    (tmp_path / "teacher").rename(tmp_path / "moved")
    moved = {**given["objective"], "teacher": str(tmp_path / "moved")}
    assert Runner(tmp_path / "cache").step("train", {**given, "objective": moved}) == first
    save_checkpoint(tmp_path / "teacher", teacher(seed=2), tiny.byte_tokenizer(), lineage=Lineage.of("test"))
    assert Runner(tmp_path / "cache").step("train", given) != first
    chain = {**given, "objective": {**moved, "teacher": "${first}"}, "type": "train"}
    steps = {"first": {**given, "objective": "causal", "type": "train"}, "second": chain}
    done = run_recipe(Recipe(name="chain", steps=steps), tmp_path / "run", cache=tmp_path / "cache")
    assert [p.role for p in resolve(done["second"]).lineage.parents] == ["source", "teacher"]


def test_another_vocabulary_is_refused(given: dict[str, Any], tmp_path: Path) -> None:
    theirs = tiny.byte_tokenizer()
    other = type(theirs)(tokenizer_object=theirs.backend_tokenizer, eos_token="</s>")
    other.add_tokens(["<new>"])
    save_checkpoint(tmp_path / "other", teacher(), other, lineage=Lineage.of("test"))
    wrong = {**given["objective"], "teacher": str(tmp_path / "other")}
    with pytest.raises(UserError, match=r"teacher and student read different tokens.*transplant"):
        Runner(tmp_path / "cache").step("train", {**given, "objective": wrong})


def test_another_vocabulary_is_understood(given: dict[str, Any], tmp_path: Path) -> None:
    """A teacher with merged tokens teaches one with bytes, and costs by the length of its own cut."""
    theirs = plain("bpe", 420, 1)
    config = tiny.llama().config
    config.vocab_size = len(theirs)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "other", type(tiny.llama())(config), theirs, lineage=Lineage.of("test"))
    table = {"name": "distillation", "teacher": str(tmp_path / "other"), "top_k": 8, "alpha": 0, "beta": 1}
    outputs = {}
    for kind in ("offsets", "warp"):
        step = {**given, "objective": {**table, "alignment": kind, "cache": "float32"}}
        outputs[kind] = Runner(tmp_path / "cache").step("train", step)
        lineage = resolve(outputs[kind]).lineage
        assert [p.name for p in lineage.parents] == ["student", "other"]
    live = {**given, "objective": {**table, "alignment": "offsets"}}
    again = Runner(tmp_path / "cache").step("train", live)
    curves = {
        kind: [(p["bpb"], p["flops"]) for p in json.loads((output / "training.json").read_text())["points"]]
        for kind, output in (*outputs.items(), ("live", again))
    }
    assert curves["live"] == curves["offsets"], "what was kept is what was said"
    assert curves["warp"][-1][0] != curves["offsets"][-1][0]
    assert curves["warp"][-1][1] == curves["offsets"][-1][1]
