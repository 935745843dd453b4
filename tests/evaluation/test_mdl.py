"""Code lengths against closed forms and a slow twin; probes against plain training loops, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from warmstart.evaluation.mdl import (
    PORTIONS,
    ends_of,
    frequency_bits,
    online_code,
    uniform_bits,
)
from warmstart.evaluation.probe import BagProbe, standardised
from warmstart.evaluation.probe_settings import ProbeSettings
from warmstart.foundation.errors import UserError


def world(seed: int, count: int, *, words: int = 40, classes: int = 4, width: int = 12, noise: float = 0.0):
    """Bags of one to three words whose class follows from the first word, but for some noise."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((words, width))
    bags = [rng.integers(0, words, rng.integers(1, 4)).tolist() for _ in range(count)]
    labels = np.array([bag[0] % classes for bag in bags])
    wrong = rng.random(count) < noise
    labels[wrong] = rng.integers(0, classes, wrong.sum())
    return vectors, bags, labels


def counted(labels: np.ndarray, classes: int):
    """A probe without vectors: class frequencies, each one more than counted."""

    def learn(count: int):
        shares = (np.bincount(labels[:count], minlength=classes) + 1) / (count + classes)
        return lambda start, stop: np.tile(np.log(shares), (stop - start, 1))

    return learn


@given(st.integers(0, 10**6), st.integers(1, 400), st.integers(2, 6))
@limits(max_examples=40, deadline=None)
def test_the_online_code_is_the_sum_over_single_labels(seed: int, count: int, classes: int) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, count)
    found = online_code(labels, classes, counted(labels, classes))
    ends = [max(1, round(share * count)) for share in PORTIONS]
    bits = 0.0
    for place, label in enumerate(labels):
        known = max((end for end in ends if end <= place), default=0)
        seen = labels[:known].tolist()
        p = (seen.count(label) + 1) / (known + classes) if known else 1 / classes
        bits -= math.log2(p)
    assert found.bits == pytest.approx(bits, rel=1e-12)
    assert found.compression == pytest.approx(count * math.log2(classes) / bits)


def test_portions_are_those_of_the_paper() -> None:
    assert ends_of(10_000) == [10, 20, 40, 80, 160, 320, 625, 1250, 2500, 5000, 10_000]
    assert ends_of(4) == [1, 2, 4] and ends_of(1) == [1]


def test_closed_cases() -> None:
    labels = np.arange(1000) % 8

    def sure(count: int):
        return lambda start, stop: np.log(np.maximum(np.eye(8)[labels[start:stop]], 1e-300))

    def knows_nothing(count: int):
        return lambda start, stop: np.full((stop - start, 8), -np.log(8))

    assert online_code(labels, 8, sure).bits == 3  # the first portion is one label
    assert online_code(labels, 8, knows_nothing).bits == pytest.approx(3000) == uniform_bits(1000, 8)
    assert online_code(labels, 8, sure, portions=[0.1, 1]).bits == pytest.approx(300)
    assert online_code(labels, 8, sure, portions=[1.0]).bits == pytest.approx(3000)


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 5))
@limits(max_examples=40, deadline=None)
def test_the_frequency_code_is_sequential(seed: int, count: int, classes: int) -> None:
    labels = np.random.default_rng(seed).integers(0, classes, count)
    bits = 0.0
    for place, label in enumerate(labels.tolist()):
        bits -= math.log2((labels[:place].tolist().count(label) + 0.5) / (place + classes / 2))
    assert frequency_bits(labels, classes) == pytest.approx(bits)


def slow_fit(
    vectors: np.ndarray,
    bags: list[list[int]],
    labels: np.ndarray,
    count: int,
    options: ProbeSettings,
    tuned: bool,
) -> np.ndarray:
    """Log-probabilities of all examples by a loop over examples, dense matrices and plain Adam."""
    used = sorted({i for bag in bags for i in bag})
    table = torch.tensor(standardised(vectors[used]), requires_grad=tuned)
    counts = torch.zeros(len(bags), len(used), dtype=table.dtype)
    for row, bag in enumerate(bags):
        for i in bag:
            counts[row, used.index(i)] += 1 / len(bag)
    classes = labels.max() + 1
    generator = torch.Generator().manual_seed(options.seed)
    weight = torch.zeros(
        classes, options.hidden_size or table.shape[1], dtype=table.dtype, requires_grad=True
    )
    bias = torch.zeros(classes, dtype=table.dtype, requires_grad=True)
    parameters = [weight, bias]
    if options.hidden_size:
        draw = torch.randn(options.hidden_size, table.shape[1], generator=generator, dtype=table.dtype)
        inner = (draw * (2 / table.shape[1]) ** 0.5).requires_grad_()
        shift = torch.zeros(options.hidden_size, dtype=table.dtype, requires_grad=True)
        parameters += [inner, shift]
    moments = {p: (torch.zeros_like(p), torch.zeros_like(p)) for p in [*parameters, table]}
    step, rate = 0, options.learning_rate
    goal = torch.tensor(labels)

    def losses(rows: torch.Tensor) -> torch.Tensor:
        states = counts[rows] @ table
        if options.hidden_size:
            states = (states @ inner.T + shift).relu()
        logits = states @ weight.T + bias
        return logits.log_softmax(1)

    def held() -> float:
        rows = torch.arange(count - max(1, count // 10), count)
        return float(-losses(rows)[torch.arange(len(rows)), goal[rows]].mean().detach())

    everything = [*parameters, table]
    best, kept, since = held(), [p.detach().clone() for p in everything], 0
    learned = count - max(1, count // 10)
    for _ in range(options.max_epochs if learned else 0):
        for batch in torch.randperm(learned, generator=generator).split(options.batch_size):
            nats = -losses(batch)[torch.arange(len(batch)), goal[batch]].mean()
            trained = everything if tuned else parameters
            gradients = torch.autograd.grad(nats, trained)
            step += 1
            with torch.no_grad():
                for p, g in zip(trained, gradients, strict=True):
                    first, second = moments[p]
                    # rows that the batch does not hold rest
                    rows = counts[batch].sum(0) > 0 if p is table else torch.ones(len(p), dtype=torch.bool)
                    first[rows] = 0.9 * first[rows] + 0.1 * g[rows]
                    second[rows] = 0.999 * second[rows] + 0.001 * g[rows] ** 2
                    small = (
                        1e-8 / (1 - 0.999**step) ** 0.5 if p is table else 1e-8
                    )  # as the lazy Adam of torch
                    unbiased = first / (1 - 0.9**step), second / (1 - 0.999**step)
                    move = rate * unbiased[0] / (unbiased[1].sqrt() + small)
                    p[rows] -= move[rows]
        now = held()
        if now < best:
            best, kept, since = now, [p.detach().clone() for p in everything], 0
        elif since + 1 == options.patience:
            break
        else:
            since, rate = since + 1, rate / 2
    with torch.no_grad():
        for p, value in zip(everything, kept, strict=True):
            p.copy_(value)
        return losses(torch.arange(len(bags))).numpy()


@pytest.mark.parametrize(("tuned", "hidden"), [(False, 0), (True, 0), (False, 7), (True, 7)])
@pytest.mark.parametrize("count", [1, 2, 9, 60])
def test_a_probe_is_a_plain_training_loop(tuned: bool, hidden: int, count: int) -> None:
    vectors, bags, labels = world(3, 90, noise=0.2)
    options = ProbeSettings(hidden_size=hidden, learning_rate=0.02, batch_size=16, max_epochs=12, patience=2)
    probe = BagProbe(vectors, bags, labels, 4, options, tuned=tuned)
    before = probe._table.clone()
    found = probe.learn(count)(0, 90)
    np.testing.assert_allclose(found, slow_fit(vectors, bags, labels, count, options, tuned), atol=1e-10)
    assert torch.equal(probe._table, before), "each portion starts from the vectors as they were given"
    differ = np.abs(found - np.log(1 / 4)).max()
    assert differ < 1e-12 if count == 1 else count < 60 or differ > 0.3


def test_random_labels_cost_what_they_are_worth() -> None:
    """Nothing can be learned; the held-out tenth keeps the cost of trying within a few per cent."""
    vectors, bags, labels = world(0, 2000)
    labels = np.random.default_rng(9).integers(0, 4, 2000)
    for tuned in (False, True):
        probe = BagProbe(vectors, bags, labels, 4, ProbeSettings(max_epochs=15), tuned=tuned)
        assert online_code(labels, 4, probe.learn).bits == pytest.approx(uniform_bits(2000, 4), rel=0.05)
    idle = BagProbe(vectors, bags, labels, 4, ProbeSettings(max_epochs=0))
    assert online_code(labels, 4, idle.learn).bits == pytest.approx(uniform_bits(2000, 4), rel=1e-12)


def test_vectors_that_say_more_have_shorter_codes() -> None:
    vectors, bags, labels = world(1, 1200)
    informed = vectors.copy()
    informed[:, :4] += 2 * np.eye(4)[np.arange(40) % 4]
    options = ProbeSettings(max_epochs=15, learning_rate=5e-3)

    def bits(rows: np.ndarray, **more: bool) -> float:
        return online_code(labels, 4, BagProbe(rows, bags, labels, 4, options, **more).learn).bits

    frozen, better, constant = bits(vectors), bits(informed), bits(np.ones_like(vectors))
    assert better < 0.9 * frozen < 0.9 * constant
    assert bits(vectors, tuned=True) < frozen, "vectors that learn along fit the labels sooner"


@pytest.mark.parametrize("tuned", [False, True])
def test_neither_scale_nor_a_shared_component_matters(tuned: bool) -> None:
    vectors, bags, labels = world(2, 150)
    options = ProbeSettings(max_epochs=5, learning_rate=0.01)
    codes = [
        BagProbe(rows, bags, labels, 4, options, tuned=tuned).learn(100)(100, 150)
        for rows in (vectors, 1e-3 * vectors + 5.0)
    ]
    np.testing.assert_allclose(codes[0], codes[1], atol=1e-7)
    assert not standardised(np.full((3, 2), 7.0)).any()


def test_bad_input_ends_in_one_sentence() -> None:
    vectors, bags, labels = world(0, 20)
    with pytest.raises(UserError, match="0 examples"):
        online_code(labels[:0], 4, counted(labels, 4))
    with pytest.raises(UserError, match="1 classes"):
        frequency_bits(labels, 1)
    for portions in ([0.5], [0.5, 0.2, 1], [0, 1], []):
        with pytest.raises(UserError, match="ascend to 1"):
            online_code(labels, 4, counted(labels, 4), portions=portions)
    with pytest.raises(UserError, match="at least one vector"):
        BagProbe(vectors, [[], *bags[1:]], labels, 4, ProbeSettings())
