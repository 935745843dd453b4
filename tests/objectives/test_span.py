"""Span corruption can be undone, has T5's lengths, and names what a tokenizer lacks."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_language_models import byte_tokenizer, unigram_tokenizer

from warmstart.foundation.errors import UserError
from warmstart.objectives import objectives
from warmstart.objectives.span import Span, _partition

tokenizer = functools.cache(unigram_tokenizer)


def objective(**options: Any) -> Span:
    entry = objectives.get("span")
    made = entry.target(entry.settings.parse(options), tokenizer())
    assert isinstance(made, Span)
    return made


def restored(inputs: list[int], labels: list[int], marks: list[int]) -> list[int]:
    """The text: each sentinel of the inputs replaced by what follows it in the labels."""
    spans: dict[int, list[int]] = {}
    for token in labels[:-1]:
        if token in marks:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    return [t for token in inputs[:-1] for t in (spans[token] if token in marks else [token])]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 120),
    st.integers(1, 6),
    st.floats(0.05, 0.5),
    st.floats(1.0, 6.0),
    st.integers(0, 2**32 - 1),
)
def test_text_can_be_restored(length: int, rows: int, density: float, mean: float, seed: int) -> None:
    made = objective(noise_density=density, mean_noise_span_length=mean)
    rng = np.random.default_rng(seed)
    marks = made.sentinels.tolist()
    ids = rng.integers(4, min(marks), (rows, length))
    replaced, spans, input_length, label_length = made.lengths(length)
    if spans > len(marks):
        with pytest.raises(UserError, match="sentinels"):
            made.collate(ids, rng)
        return
    batch = made.collate(ids, rng)
    assert batch["input_ids"].shape == (rows, input_length)
    assert batch["labels"].shape == (rows, label_length)
    for block, inputs, labels in zip(ids, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        assert restored(inputs, labels, marks) == block.tolist()
        assert [t for t in inputs if t in marks] == marks[:spans] == [t for t in labels if t in marks]
        assert inputs[-1] == labels[-1] == tokenizer().eos_token_id
        assert inputs[0] not in marks and labels[0] == marks[0]
        assert len([t for t in labels if t not in marks]) - 1 == replaced


def test_lengths_are_those_of_t5() -> None:
    """568 tokens give 512 inputs and 114 targets, as in the released configuration."""
    made = objective()
    assert made.lengths(568)[2:] == (512, 114)
    assert made.shape(568)[:3] == (512, 114, 1.0)


def test_partitions_are_uniform() -> None:
    """6 tokens in 3 spans: each of the 10 compositions is as likely."""
    found = _partition(np.random.default_rng(0), 20_000, 6, 3)
    assert (found > 0).all() and (found.sum(1) == 6).all()
    _, counts = np.unique(found, axis=0, return_counts=True)
    assert len(counts) == 10
    assert counts == pytest.approx([2000] * 10, rel=0.1)


def test_every_token_is_replaced_equally_often() -> None:
    made = objective()
    ids = np.tile(np.arange(4, 64), (4000, 1))
    labels = made.collate(ids, np.random.default_rng(0))["labels"].numpy()
    share = np.bincount(labels.ravel(), minlength=200)[4:64] / 4000
    assert share.mean() == pytest.approx(9 / 60)
    assert share[0] == 0  # a block begins with a kept token
    # Because blocks begin kept and end replaced, the ends differ; the middle does not.
    assert share[15:45] == pytest.approx(share[15:45].mean(), rel=0.25)


def test_what_is_missing_is_named() -> None:
    entry = objectives.get("span")
    made = entry.target(entry.settings.parse({}), byte_tokenizer())
    with pytest.raises(UserError, match="extra_id_0"):
        made.collate(np.ones((1, 20), dtype=int), np.random.default_rng(0))
    with pytest.raises(UserError, match="too short"):
        objective().collate(np.ones((1, 1), dtype=int), np.random.default_rng(0))
    with pytest.raises(UserError, match="20"):
        objective().collate(np.ones((1, 600), dtype=int), np.random.default_rng(0))
