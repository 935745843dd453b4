"""Runs with a teacher: what they cost, when it leaves, and that they resume."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_taught as taught
import training_tiny as tiny
from test_training_resume import stop_in_step
from torch.utils.flop_counter import FlopCounterMode
from transformers import OPTConfig, OPTForCausalLM

from warmstart.checkpoint import Lineage, save_checkpoint
from warmstart.foundation.errors import UserError
from warmstart.training import Interrupted
from warmstart.training.loop import flops_per_token, make_objective, teacher_flops_per_token

ROWS = 32


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("kind", "tolerance"), [("llama", 0.0), ("t5", 0.0), ("bert", 0.1)])
@pytest.mark.parametrize("top_k", [None, 5])
def test_flops_are_those_that_run(kind: str, tolerance: float, top_k: int | None) -> None:
    """Of a student's forward and backward pass and the forward pass of a teacher of another size."""
    model, teacher = tiny.MODELS[kind](), taught.teacher(kind)
    for one in (model, teacher):
        one.set_attn_implementation("eager")  # torch does not count its fused attention on CPUs
    objective = taught.taught(kind, learner=model, who=teacher, top_k=top_k)
    objective.prepare(model, torch.device("cpu"))
    batch = objective.collate(tiny.ArrayBlocks(ROWS).ids, np.random.default_rng(0))
    objective.loss(model, batch)  # finds out what the heads do, which costs operations once
    for share, resting in ((0.0, 0.0), (0.9, 1.0)):
        objective.settings.__dict__["until"] = 0.5
        objective.at(share)
        with FlopCounterMode(display=False) as counter:
            objective.loss(model, batch)[0].backward()
        each = flops_per_token(model, objective, tiny.LENGTH)
        each -= resting * teacher_flops_per_token(model, objective, tiny.LENGTH)
        expected = each * ROWS * tiny.LENGTH
        assert counter.get_total_flops() == pytest.approx(expected, rel=max(tolerance, 1e-12))


def test_a_teacher_without_table_counts_two_per_parameter() -> None:
    size = len(tiny.byte_tokenizer())
    config = OPTConfig(
        vocab_size=size, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2
    )
    teacher, model = OPTForCausalLM(config), tiny.llama()
    count = sum(p.numel() for p in teacher.parameters())
    objective = taught.taught(learner=model, who=teacher)
    assert teacher_flops_per_token(model, objective, 24) == 2 * count
    plain = make_objective(model, tiny.byte_tokenizer(), tiny.settings())
    alone = flops_per_token(model, plain, 24)
    assert flops_per_token(model, objective, 24) == pytest.approx(alone + 2 * count, rel=1e-12)
    assert flops_per_token(teacher, objective, 24) == (6 + 2) * count


@pytest.mark.parametrize("until", [1.0, 0.4])
def test_a_curve_counts_the_teacher_while_it_teaches(tmp_path: Path, until: float) -> None:
    """12 steps of which the first 5 (middles below 0.4) have a teacher."""
    result = taught.run(tmp_path, table={"until": until}, eval_points=[0.25, 0.5])
    model = tiny.llama()
    objective = taught.taught(learner=model)
    both = flops_per_token(model, objective, tiny.LENGTH)
    teacher = teacher_flops_per_token(model, objective, tiny.LENGTH)
    assert both > 1.5 * teacher > 0
    for point in result.curve.points:
        lessons = point.step if until == 1 else min(point.step, 5)
        per_step = 4 * tiny.LENGTH
        expected = per_step * (point.step * (both - teacher) + lessons * teacher)
        assert point.flops == pytest.approx(expected, rel=1e-12)
    assert [point.step for point in result.curve.points] == [0, 3, 6, 12]


def test_the_teacher_changes_the_student_until_it_leaves(tmp_path: Path) -> None:
    """Weights after the teacher has left depend on it; with beta 0 they do not."""
    ends = {}
    few = {"max_steps": 4, "eval_points": [], "save_steps": None}
    for name, table, seed in (
        ("one", {"until": 0.4}, 1),
        ("two", {"until": 0.4}, 2),
        ("none", {"alpha": 1, "beta": 0}, 1),
    ):
        who = taught.teacher(seed=seed)
        ends[name] = taught.run(tmp_path / name, table=table, who=who, **few).checkpoint
    plain = tiny.run(tmp_path / "plain", **few).checkpoint
    assert tiny.same_bits(ends["none"], plain)
    assert not tiny.same_bits(ends["one"], ends["two"])


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("llama", {"until": 0.7, "schedule": "linear", "top_k": 7}),
        ("bert", {"until": 0.4, "divergence": "jensen-shannon"}),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, table: dict[str, Any]
) -> None:
    """With dropout and random masks; stopped after the teacher has left, and while it fades."""
    make = {
        "llama": lambda: tiny.llama(dropout=0.2),
        "bert": tiny.bert,
    }[kind]
    whole = taught.run(tmp_path / "whole", kind=kind, model=make(), table=table)
    stop_in_step(monkeypatch, 6, signal.SIGTERM)
    with pytest.raises(Interrupted) as stopped:
        taught.run(tmp_path / "part", kind=kind, model=make(), table=table)
    assert stopped.value.result.steps == 6
    rest = taught.run(tmp_path / "part", kind=kind, model=make(), table=table)
    assert tiny.curve(rest) == tiny.curve(whole)
    assert tiny.curve(tmp_path / "part") == tiny.curve(tmp_path / "whole")
    assert tiny.same_bits(rest.checkpoint, whole.checkpoint)


def test_another_teacher_is_another_run(tmp_path: Path) -> None:
    taught.run(tmp_path, max_steps=1)
    with pytest.raises(UserError, match="the run folder holds another run: objective's parts"):
        taught.run(tmp_path, max_steps=1, who=taught.teacher(seed=2))


def test_a_teacher_is_named_in_the_table(tmp_path: Path) -> None:
    """`distillation` is what the model's kind calls it; the checkpoint is loaded and its tokens compared."""
    lineage = Lineage.of("test")
    for kind in ("llama", "bert"):
        save_checkpoint(tmp_path / kind, taught.teacher(kind), tiny.byte_tokenizer(), lineage=lineage)
    for kind, name in (("llama", "Distillation"), ("bert", "MaskedDistillation")):
        table = {"name": "distillation", "teacher": str(tmp_path / kind)}
        made = make_objective(tiny.MODELS[kind](), tiny.byte_tokenizer(), tiny.settings(objective=table))
        assert type(made).__name__ == name and made.tutor is not None
        pairs = zip(made.tutor.parameters(), taught.teacher(kind).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(UserError, match="the teacher is a causal model and the student is masked"):
        table = {"name": "distillation", "teacher": str(tmp_path / "llama")}
        make_objective(tiny.bert(), tiny.byte_tokenizer(), tiny.settings(objective=table))
    with pytest.raises(UserError, match="here another one teaches"):
        taught.taught(teacher=str(tmp_path / "llama"))
    with pytest.raises(UserError, match="nobody to learn from"):
        tiny.run(tmp_path / "run", objective="distillation")
