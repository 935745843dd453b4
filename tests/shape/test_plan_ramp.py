"""Batch ramp and learning rate against a run counted step by step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstart.foundation.errors import UserError
from warmstart.shape.plan import RampSettings, learning_rate, levels
from warmstart.shape.plan.ramp import rows

SHEET = RampSettings(
    start=32,
    increment=32,
    tokens=12e9,
    learning_rate=5e-5,
    warmup_tokens=1e9,
    decay_tokens=340e9,
    min_lr_ratio=0.1,
)


def walk(start: int, increment: int, batch: int, ramp: int, end: int) -> list[int]:
    """Batch of every step as Megatron's calculator gives it, in whole numbers."""
    sizes, consumed = [], 0
    growths = (batch - start) // increment
    while consumed < end:
        size = batch if consumed >= ramp or not growths else start + increment * (consumed * growths // ramp)
        sizes.append(size)
        consumed += size
    return sizes


@settings(max_examples=150, deadline=None)
@given(
    start=st.integers(1, 20),
    increment=st.integers(1, 20),
    growths=st.integers(0, 12),
    ramp=st.integers(1, 2000),
    end=st.integers(1, 4000),
    length=st.sampled_from([1, 16]),
)
def test_levels_are_the_steps_of_the_run(start, increment, growths, ramp, end, length):
    batch = start + growths * increment
    settings = RampSettings(start=start, increment=increment, tokens=ramp * length)
    found = levels(settings, batch=batch, sequence_length=length, tokens=end * length)
    expected = walk(start, increment, batch, ramp, end)
    assert [level.batch for level in found for _ in range(level.steps)] == expected
    step = tokens = 0
    for level in found:
        assert (level.first_step, level.first_token) == (step, tokens)
        step, tokens = step + level.steps, tokens + level.steps * level.batch * length


def test_without_a_ramp_every_step_has_the_whole_batch():
    (level,) = levels(RampSettings(), batch=8, sequence_length=10, tokens=1000)
    assert (level.batch, level.steps) == (8, math.ceil(100 / 8))
    (level,) = levels(RampSettings(start=2), batch=8, sequence_length=10, tokens=1000)
    assert level.batch == 8


def test_the_sheet_ramp():
    found = levels(SHEET, batch=1920, sequence_length=2048, tokens=270e9)
    assert [level.batch for level in found] == list(range(32, 1921, 32))
    assert found[-1].first_token == pytest.approx(12e9, rel=0.001)
    points = list(rows(SHEET, batch=1920, sequence_length=2048, tokens=270e9))
    assert (points[0]["batch_size"], points[-1]["batch_size"]) == (32, 1920)
    assert points[-1]["tokens"] == 270e9
    steps = sum(level.steps for level in found)
    assert points[-1]["step"] in (steps - 1, steps)  # the last step passes the last token


@pytest.mark.parametrize("token", [0, 1e8, 1e9, 5e10, 1.705e11, 2.7e11, 3.4e11, 5e11])
def test_rate_is_warm_up_then_half_a_cosine(token):
    if token <= 1e9:
        expected = 5e-5 * token / 1e9
    else:
        share = min(1.0, (token - 1e9) / (340e9 - 1e9))
        expected = 5e-6 + 4.5e-5 * 0.5 * (1 + math.cos(math.pi * share))
    assert learning_rate(SHEET, token, tokens=270e9) == pytest.approx(expected)


def test_a_ramp_that_does_not_meet_the_batch_is_refused():
    with pytest.raises(UserError, match="steps of 7 do not lead from 2 to 20"):
        levels(RampSettings(start=2, increment=7, tokens=10), batch=20, sequence_length=1, tokens=99)
    with pytest.raises(UserError, match="do not lead from 30 to 20"):
        levels(RampSettings(start=30, tokens=10), batch=20, sequence_length=1, tokens=99)
