"""Runs with the memory-lean optimizers resume, clip, keep rows and take precision as with AdamW."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import test_training_rows as rows
import torch
import training_tiny as tiny
from optimizer_twins import LEAN
from test_optimizers_restarts import stop_before

from warmstart.training import Interrupted
from warmstart.training.batches import StepBatches
from warmstart.training.engine import Engine
from warmstart.training.loop import make_objective
from warmstart.training.parameters import make_optimizer

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", list(LEAN))
def test_stopped_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Stopped after a projection was renewed (5) and before the next renewal (10)."""
    options = {"optimizer": LEAN[name], "save_steps": 6, "learning_rate": 1e-2}
    whole = tiny.run(tmp_path / "whole", model=tiny.llama(dropout=0.2), **options)
    assert whole.curve.final < whole.curve.points[0].bpb - 0.02
    stop_before(monkeypatch, 9)
    with pytest.raises(Interrupted):
        tiny.run(tmp_path / "part", model=tiny.llama(dropout=0.2), **options)
    monkeypatch.undo()
    rest = tiny.run(tmp_path / "part", model=tiny.llama(dropout=0.2), **options)
    assert tiny.curve(rest) == tiny.curve(whole)
    assert tiny.same_bits(rest.checkpoint, whole.checkpoint)


@pytest.mark.parametrize("name", ["galore", "apollo", "adafactor"])
def test_gradients_are_divided_and_clipped_before_the_update(tmp_path: Path, name: str) -> None:
    """The engine's steps are a plain loop with the same optimizer, the mean loss and torch's clipping."""
    ours, plain = tiny.llama().train(), tiny.llama().train()
    options = tiny.settings(optimizer=LEAN[name], max_grad_norm=0.5, fast_kernels=False)
    objective = make_objective(ours, tiny.byte_tokenizer(), options)
    engine = Engine(ours, objective, options, tmp_path)
    optimizer = make_optimizer(plain, dict(plain.named_parameters()), options)
    with StepBatches(tiny.ArrayBlocks(), objective, seed=0, rows=4, passes=2) as batches:
        for step in range(4):
            engine.step(batches.get(step), 2, 3e-3)
            for batch in batches.get(step):
                nll, targets = objective.loss(plain, batch)
                nll.backward()
            for parameter in plain.parameters():
                parameter.grad /= 2 * targets  # two passes of equally many targets
            assert torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5) > 0.5, "clipping is not tested"
            optimizer.step()
            optimizer.zero_grad()
    engine.close()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["fira", "apollo", "adafactor", "restarts"])
def test_vocabulary_rows_that_are_not_chosen_keep_every_bit(tmp_path: Path, name: str) -> None:
    model = rows.signed_zeros(tiny.llama(tied=False))
    before = {key: rows.bits(p).copy() for key, p in model.named_parameters()}
    optimizer = {"name": "restarts", "every": 2} if name == "restarts" else LEAN[name]
    rows.run(tmp_path, model, optimizer=optimizer, weight_decay=0.5, max_steps=5, save_steps=5)
    for key, parameter in model.named_parameters():
        changed = (rows.bits(parameter) != before[key]).reshape(len(before[key]), -1).any(1)
        if key in rows.vocabulary(model):
            assert np.flatnonzero(changed).tolist() == rows.ROWS, key
        elif parameter.ndim == 2:
            assert changed.all(), key


def test_bf16_leaves_weights_and_state_in_float32(tmp_path: Path) -> None:
    result = tiny.run(tmp_path, optimizer=LEAN["fira"], bf16=True, max_steps=16, learning_rate=1e-2)
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert {v.dtype for v in tiny.weights(result.checkpoint, file).values()} == {torch.float32}
    assert result.curve.final < result.curve.points[0].bpb - 0.1
