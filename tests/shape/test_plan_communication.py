"""Bytes on the wire: a simulated ring, and sums over matrices, blocks and passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_jobs import MT_NLG, job, llama

from warmstart.shape.plan import Layout
from warmstart.shape.plan.communication import ring, traffic_of


def all_reduce(values: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Sum the rows of `(n, n * k)` by a ring: reduce-scatter, then all-gather; returns also numbers sent."""
    n = len(values)
    parts = [list(np.split(row.copy(), n)) for row in values]
    sent = [0] * n
    for phase in (0, 1):
        for step in range(n - 1):
            moves = [(rank, (rank + phase - step) % n) for rank in range(n)]
            carried = [parts[rank][part].copy() for rank, part in moves]
            for (rank, part), data in zip(moves, carried):
                target = (rank + 1) % n
                parts[target][part] = data if phase else parts[target][part] + data
                sent[rank] += data.size
    return np.array([np.concatenate(row) for row in parts]), sent


@settings(max_examples=30, deadline=None)
@given(devices=st.integers(1, 8), each=st.integers(1, 5))
def test_a_ring_sends_what_is_counted(devices, each):
    values = np.random.default_rng(0).normal(size=(devices, devices * each))
    summed, sent = all_reduce(values)
    assert np.allclose(summed, values.sum(axis=0))
    for count in sent:
        assert count == pytest.approx(2 * ring(devices, devices * each))


@pytest.mark.parametrize(("recompute", "passes"), [("none", 4), ("full", 6)])
def test_two_sums_forward_and_two_backward_per_layer(recompute, passes):
    big = job(MT_NLG, precision="megatron", length=2048)
    layout = Layout(tensor=8, micro_batch=2, micro_batches=3, recompute=recompute)
    payload = 2 * 3 * 2048 * 20480 * 2
    expected = (passes * 105 + 2) * payload * 2 * 7 / 8
    assert traffic_of(big, layout).tensor == pytest.approx(expected)
    staged = Layout(tensor=8, pipeline=35, micro_batch=2, micro_batches=3, recompute=recompute)
    inner = traffic_of(big, staged)
    assert inner.tensor == pytest.approx(expected / 35)
    assert inner.pipeline == 2 * payload


def test_a_decoder_that_attends_twice_sums_three_times():
    config = {"model_type": "t5", "d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 64}
    small = job({**config, "num_layers": 2, "num_decoder_layers": 3})
    payload = 32 * 32 * 4
    expected = (2 * (2 * 2 + 3 * 3) + 2 * 2) * payload * 2 * 1 / 2
    assert traffic_of(small, Layout(tensor=2)).tensor == pytest.approx(expected)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_data_parallel_traffic_is_the_sum_over_matrices(stage):
    small, copies, many = job(llama(), precision="mixed"), 4, 3
    layout = Layout(data=copies, stage=stage, micro_batches=many)
    part = copies - 1  # each of `copies` equal pieces but one's own goes round
    sent = 0.0
    for spec in small.anatomy.language_model.values():
        piece = spec.size / copies
        reduce_scatter, gather, gather_small = part * piece * 4, part * piece * 4, part * piece * 2
        sent += {
            0: reduce_scatter + gather,
            1: reduce_scatter + gather,
            2: many * reduce_scatter + gather,
            3: many * (reduce_scatter + 2 * gather_small),
        }[stage]
    assert traffic_of(small, layout).data == pytest.approx(sent)


def test_one_device_sends_nothing():
    found = traffic_of(job(), Layout(micro_batches=7))
    assert set(vars(found).values()) == {0}


def test_calls_are_counted_one_by_one():
    small = job(llama(num_hidden_layers=6))
    assert traffic_of(small, Layout(tensor=2, micro_batches=5)).tensor_calls == 5 * 6 * (2 + 2)
    assert traffic_of(small, Layout(tensor=2, pipeline=3, recompute="full")).tensor_calls == 2 * (2 + 2 + 2)
    assert traffic_of(small, Layout(pipeline=3, micro_batches=5)).pipeline_calls == 2 * 5
    calls = [traffic_of(small, Layout(data=2, stage=s, micro_batches=5)).data_calls for s in range(4)]
    assert calls == [1, 2, 5 * 6 + 1, 3 * 5 * 6]
