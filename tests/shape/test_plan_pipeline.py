"""Bubble and activations in flight against a simulated 1F1B schedule; which layouts are possible."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstart.foundation.errors import UserError
from warmstart.shape.plan import Layout, bubble, in_flight


def simulate(stages: int, micro_batches: int, forward: float, backward: float) -> tuple[float, list[int]]:
    """Run 1F1B: each stage fills the pipeline, then alternates, then drains; every pass waits for its input.

    Returns:
        Time until the last backward pass, and per stage the most micro-batches held at once.
    """
    orders = []
    for stage in range(stages):
        warm = min(stages - stage - 1, micro_batches)
        order = [("f", i) for i in range(warm)]
        for i in range(micro_batches - warm):
            order += [("f", warm + i), ("b", i)]
        orders.append(order + [("b", i) for i in range(micro_batches - warm, micro_batches)])
    done: dict[tuple[int, str, int], float] = {}
    clock, place, held, most = [0.0] * stages, [0] * stages, [0] * stages, [0] * stages
    while any(place[s] < len(orders[s]) for s in range(stages)):
        moved = False
        for stage in range(stages):
            if place[stage] == len(orders[stage]):
                continue
            kind, number = orders[stage][place[stage]]
            before = (stage - 1, "f", number) if kind == "f" else (stage + 1, "b", number)
            if kind == "b" and stage == stages - 1:
                before = (stage, "f", number)
            if before[0] >= 0 and before not in done:
                continue
            start = max(clock[stage], done.get(before, 0.0))
            clock[stage] = start + (forward if kind == "f" else backward)
            done[stage, kind, number] = clock[stage]
            held[stage] += 1 if kind == "f" else -1
            most[stage] = max(most[stage], held[stage])
            place[stage] += 1
            moved = True
        assert moved, "the schedule is stuck"
    return max(clock), most


@settings(max_examples=80, deadline=None)
@given(stages=st.integers(1, 9), micro_batches=st.integers(1, 20), ratio=st.sampled_from([1.0, 2.0, 3.0]))
def test_bubble_and_activations_are_those_of_1f1b(stages, micro_batches, ratio):
    time, most = simulate(stages, micro_batches, 1.0, ratio)
    ideal = micro_batches * (1 + ratio)
    assert (time - ideal) / ideal == pytest.approx(bubble(stages, micro_batches))
    assert most == [in_flight(stage, stages, micro_batches) for stage in range(stages)]


def test_bubble_of_the_sheet():
    assert bubble(35, 240) == pytest.approx(34 / 240)
    assert bubble(1, 7) == 0


def test_counts_of_a_layout():
    layout = Layout(tensor=8, pipeline=35, data=8, micro_batch=1, micro_batches=240)
    assert (layout.devices, layout.batch, layout.tensor * layout.pipeline) == (2240, 1920, 280)


@pytest.mark.parametrize(
    ("layout", "stacks", "said"),
    [
        (Layout(tensor=3), 1, "use one of 1, 2, 4"),
        (Layout(pipeline=4), 1, "use one of 1, 2, 3, 6"),
        (Layout(pipeline=2), 2, "encoder-decoder"),
        (Layout(pipeline=2, stage=2), 1, "stage 0 or 1 with a pipeline"),
    ],
)
def test_impossible_layouts_are_refused(layout, stacks, said):
    with pytest.raises(UserError, match=said):
        layout.check(6, [1, 2, 4], stacks=stacks)
