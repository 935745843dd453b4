"""Budgets, schedules over a run, evaluation points, logs and trackers."""

from __future__ import annotations

from pathlib import Path

import pytest
import training_tiny as tiny

from warmstart.checkpoint import Lineage, resolve
from warmstart.foundation.errors import UserError
from warmstart.foundation.events import EventLog
from warmstart.training import TrainSettings
from warmstart.training.plan import Plan
from warmstart.training.schedule import schedules


def plan(**options: object) -> Plan:
    return Plan.of(TrainSettings.parse({"block_size": 8, **options}), tokens_per_step=32, num_blocks=10)


@pytest.mark.parametrize(
    ("budget", "steps"),
    [({"max_steps": 7}, 7), ({"max_tokens": 65}, 3), ({"num_train_epochs": 2}, 5), ({"max_tokens": 1}, 1)],
)
def test_budget_in_steps(budget: dict[str, int], steps: int) -> None:
    assert plan(**budget).total_steps == steps
    assert plan(**budget).finished(steps, 0) and not plan(**budget).finished(steps - 1, 1e9)


def test_no_budget_is_refused() -> None:
    with pytest.raises(UserError, match="no budget"):
        plan()


@pytest.mark.parametrize("name", schedules.names())
def test_rate_over_a_run(name: str) -> None:
    """Never zero, near the peak after the warm-up, and equal for a budget in steps, tokens and seconds."""
    steps = plan(max_steps=100, lr_scheduler_type=name, warmup_ratio=0.1, learning_rate=2.0)
    tokens = plan(max_tokens=3200, lr_scheduler_type=name, warmup_ratio=0.1, learning_rate=2.0)
    seconds = plan(max_seconds=10, lr_scheduler_type=name, warmup_ratio=0.1, learning_rate=2.0)
    rates = [steps.learning_rate(step, 0) for step in range(100)]
    assert all(0 < rate <= 2 for rate in rates)
    assert rates[:10] == pytest.approx([2 * (step + 0.5) / 10 for step in range(10)])
    assert rates[10] > 1.9
    assert rates == [tokens.learning_rate(step, 0) for step in range(100)]
    assert rates == pytest.approx([seconds.learning_rate(7, (step + 0.5) / 10) for step in range(100)])


def test_points_are_measured_once_each() -> None:
    options = plan(max_steps=10, eval_points=[0.25, 0.3, 0.5, 100], eval_steps=7)
    assert [s for s in range(11) if options.measure_now(s, 0, 0)] == [0, 3, 4, 5, 7, 10]
    timed = plan(max_seconds=10, eval_points=[0.5])
    assert timed.measure_now(9, 5.2, 4.9) and not timed.measure_now(10, 5.4, 5.2)


def test_curve_and_log_tell_the_same(tmp_path: Path) -> None:
    result = tiny.run(tmp_path / "a", logging_steps=2)
    points = [
        {k: v for k, v in event.items() if k != "event"}
        for event in EventLog(tmp_path / "a/events.jsonl").read("evaluation")
    ]
    assert points == [point.model_dump() for point in result.curve.points]
    assert [p["step"] for p in points] == [0, 3, 6, 12]
    assert [p["tokens"] for p in points] == [0, 288, 576, 1152]
    assert points[0]["train_loss"] is None and points[-1]["flops"] == 1152 * points[1]["flops"] / 288
    logged = list(EventLog(tmp_path / "a/events.jsonl").read("train"))
    assert [event["step"] for event in logged] == [2, 4, 6, 8, 10, 12]
    means = [event["loss"] for event in logged]
    window = [p["train_loss"] for p in points[1:]]
    assert window[2] == pytest.approx(sum(means[3:]) / 3) and means[-1] < means[0]
    assert all(event["tokens_per_second"] > 0 and event["grad_norm"] > 0 for event in logged)


def test_seconds_budget_ends_and_excludes_measuring(tmp_path: Path) -> None:
    import time

    def slow(model: object) -> float:
        time.sleep(0.3)
        return 1.0

    begin = time.monotonic()
    result = tiny.train(
        tiny.llama(),
        None,
        tiny.ArrayBlocks(),
        TrainSettings(block_size=tiny.LENGTH, max_seconds=0.5, eval_points=[0.5], save_seconds=None),
        tmp_path / "a",
        evaluate=slow,
    )
    assert len(result.curve.points) == 3 and result.steps > 1
    assert 0.5 <= result.seconds < time.monotonic() - begin - 0.8


def test_tensorboard_files_are_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = tiny.run(tmp_path / "a", report_to="tensorboard")
    files = list((tmp_path / "a/trackers").rglob("events.out.tfevents.*"))
    assert files
    read = EventAccumulator(str(files[0].parent))
    read.Reload()
    assert [s.step for s in read.Scalars("eval_bpb")] == [p.step for p in result.curve.points]
    assert read.Scalars("eval_bpb")[-1].value == pytest.approx(result.curve.final)
    assert {"loss", "learning_rate", "grad_norm", "tokens_per_second"} <= set(read.Tags()["scalars"])


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown tracker 'tensorbord'.*choose none or"):
        tiny.run(tmp_path / "a", report_to="tensorbord")
    with pytest.raises(UserError, match="packed in blocks of 24"):
        tiny.run(tmp_path / "a", block_size=16)
    with pytest.raises(UserError, match=r"'masked' is for masked models.*use objective: causal"):
        tiny.run(tmp_path / "a", objective="masked")
    with pytest.raises(UserError, match="unknown key 'mlm_prob'"):
        tiny.run(tmp_path / "a", kind="bert", objective={"name": "masked", "mlm_prob": 0.2})
    empty = tiny.ArrayBlocks(0)
    with pytest.raises(UserError, match="shorter than one block"):
        tiny.train(tiny.llama(), None, empty, tiny.settings(), tmp_path / "a")


def test_checkpoint_opens_with_plain_transformers(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = tiny.llama()
    lineage = Lineage.of("train", {"max_steps": 12}, parents=[], data={"blocks": "abc"})
    result = tiny.train(
        model, tiny.byte_tokenizer(), tiny.ArrayBlocks(), tiny.settings(), tmp_path / "a", lineage=lineage
    )
    found = resolve(result.checkpoint)
    assert found.task == "causal" and found.lineage == lineage
    loaded = AutoModelForCausalLM.from_pretrained(result.checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    assert AutoTokenizer.from_pretrained(result.checkpoint)("ab")["input_ids"]
