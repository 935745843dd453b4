"""Calls of tools measured: the constant against brute force, scores by counting, logits by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_language_models import model_for
from torch.nn import functional as F

from warmstart.evaluation.tool_calls import (
    Decisions,
    accuracy,
    best_constant,
    bits_per_call,
    decisions,
    scores,
    tool_call_scores,
)
from warmstart.foundation.errors import UserError

TOOLS = [20, 23, 21]


def blocks(length: int = 12) -> np.ndarray:
    """Texts of different lengths, with calls, a call that is not asked for, and their results."""
    rng = np.random.default_rng(0)
    rows = np.full((7, 2, length), -1)
    for row, size in zip(rows, (12, 5, 9, 2, 12, 7, 3)):
        row[:, :size] = rng.integers(0, 20, size)
        if size > 4:
            row[1, 2:4] = [TOOLS[size % 3], -1]
        if size > 8:
            row[1, 6:8] = -1
    return rows


def by_hand(reader: Any, rows: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Logits and label of each place, text by text without padding."""
    found = []
    for ids, labels in rows:
        ids = ids[ids >= 0]
        logits = reader(input_ids=torch.from_numpy(ids[None]))["logits"][0].detach().numpy()
        found += [(logits[i - 1], int(labels[i])) for i in range(1, len(ids)) if labels[i] >= 0]
    return found


def test_decisions_are_the_logits_of_every_asked_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warmstart.evaluation.tool_calls._POSITIONS", 30)  # several batches
    reader, rows = model_for("llama", 24, tied=False), blocks()
    found, expected = decisions(reader, rows, TOOLS), by_hand(reader, rows)
    assert len(found.text) == len(expected) > 20
    others = [i for i in range(24) if i not in TOOLS]

    def sorted_rows(table: Any) -> np.ndarray:
        return np.array(sorted(map(tuple, np.round(table, 4))))

    ours = np.column_stack([found.text, found.tools, found.gold])
    theirs = [
        [z[others].max(), *z[TOOLS], TOOLS.index(label) if label in TOOLS else -1] for z, label in expected
    ]
    np.testing.assert_allclose(sorted_rows(ours), sorted_rows(theirs), atol=2e-4)
    assert (found.gold >= 0).sum() == 5


def test_bits_per_call_are_those_of_the_whole_softmax() -> None:
    reader, rows = model_for("llama", 24, tied=False), blocks()
    losses = [
        float(F.cross_entropy(torch.from_numpy(z), torch.tensor(label)))
        for z, label in by_hand(reader, rows)
        if label in TOOLS
    ]
    assert bits_per_call(reader, rows, TOOLS) == pytest.approx(np.mean(losses) / math.log(2), rel=1e-5)
    with pytest.raises(UserError, match="no tool of the model is called"):
        bits_per_call(reader, rows, [22])
    with pytest.raises(UserError, match="no text with calls"):
        decisions(reader, [], TOOLS)


def random_decisions(seed: int, places: int = 40, tools: int = 3, step: float = 0.0) -> Decisions:
    rng = np.random.default_rng(seed)
    gold = rng.integers(-1, tools, places) * (rng.random(places) < 0.6)
    logits = rng.normal(size=(places, tools)) + 1.5 * (np.arange(tools) == gold[:, None])
    text = rng.normal(2, 1, places)
    if step:  # many equal gaps
        logits, text = np.round(logits / step) * step, np.round(text / step) * step
    return Decisions(text.astype(np.float32), logits.astype(np.float32), np.where(gold == 0, -1, gold))


def counted(found: Decisions, constant: float) -> float:
    """F1 by going through the places one by one."""
    hits = made = due = 0
    for text, tools, gold in zip(found.text, found.tools, found.gold):
        best = max(range(len(tools)), key=lambda k: tools[k])
        calls = float(tools[best]) + constant > float(text)
        hits, made, due = hits + (calls and best == gold), made + calls, due + (gold >= 0)
    return 2 * hits / max(made + due, 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5]))
def test_the_constant_is_the_best_of_all(seed: int, step: float) -> None:
    """Not below any constant of a fine grid, and F1, precision and recall are what counting gives."""
    found = random_decisions(seed, step=step)
    constant = best_constant(found)
    f1, precision, recall = scores(found, constant)
    assert f1 == pytest.approx(counted(found, constant), abs=1e-12)
    assert f1 >= max(counted(found, c) for c in np.linspace(-8, 8, 161)) - 1e-12
    if f1:
        assert 2 * precision * recall / (precision + recall) == pytest.approx(f1)
    given = [-1.0, 0.0, 2.7]
    assert counted(found, best_constant(found, given)) == max(counted(found, c) for c in given)


def test_accuracy_is_averaged_over_tools_and_ties_do_not_count() -> None:
    tools = np.array([[3.0, 1, 0], [3, 1, 0], [3, 1, 0], [0, 2, 1], [0, 1, 5], [2, 1, 2]])
    found = Decisions(np.zeros(6), tools, np.array([0, 0, 0, 0, 2, 2]))
    assert accuracy(found) == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert accuracy(found, np.array([False, True, True])) == pytest.approx(1 / 2)
    assert accuracy(found, np.array([False, True, False])) is None
    everywhere_equal = Decisions(np.zeros(4), np.zeros((4, 3)), np.array([0, 1, 2, 2]))
    assert accuracy(everywhere_equal) == 0.0


def test_untrained_tools_take_no_part_in_f1_and_trained_ones_none_in_zero_shot() -> None:
    valid, test = random_decisions(1), random_decisions(2, places=200, tools=5)
    valid = Decisions(valid.text, np.pad(valid.tools, ((0, 0), (0, 2)), constant_values=99), valid.gold)
    trained = np.array([True, True, True, False, False])
    found = tool_call_scores(valid, test, trained)
    kept = np.isin(test.gold, [-1, 0, 1, 2])
    reported = Decisions(test.text[kept], test.tools[kept, :3], test.gold[kept])
    alone = Decisions(valid.text, valid.tools[:, :3], valid.gold)
    assert found.constant == best_constant(alone)
    assert found.f1 == pytest.approx(counted(reported, found.constant))
    assert found.plain_f1 == pytest.approx(counted(reported, 0.0))
    late = test.gold >= 3
    right = test.tools[late][:, 3:].argmax(1) + 3 == test.gold[late]
    among_all = test.tools[late].argmax(1) == test.gold[late]
    for value, hits in ((found.zero_shot_accuracy, right), (found.zero_shot_among_all, among_all)):
        assert value == pytest.approx(np.mean([hits[test.gold[late] == tool].mean() for tool in (3, 4)]))
    assert found.zero_shot_chance == 0.5 and found.zero_shot_calls == late.sum()
    whole = tool_call_scores(test, test, np.ones(5, dtype=bool))
    assert whole.zero_shot_accuracy is None and whole.zero_shot_calls == 0
    with pytest.raises(UserError, match="called in the valid part"):
        tool_call_scores(valid, test, np.array([False, False, False, True, True]))
