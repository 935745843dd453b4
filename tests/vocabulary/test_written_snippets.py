"""Snippets that the model writes: they begin with the token's pieces and continue as the model would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from vocab_extended import extended
from vocab_families import FAMILIES, random_model

from warmstart.vocabulary.aligning import align
from warmstart.vocabulary.map import VocabMap
from warmstart.vocabulary.written_snippets import _continued, sample_snippets


def model(size: int) -> Any:
    from transformers import AutoConfig

    kind, task, _, sizes = FAMILIES["llama"]
    return random_model(AutoConfig.for_model(kind, **sizes, vocab_size=size), task).float()


@pytest.mark.parametrize("kind", ["merge", "offsets"])
@pytest.mark.parametrize("bos", [False, True])
def test_each_rare_token_gets_its_number(kind: Any, bos: bool) -> None:
    source, target = extended()
    vocab = VocabMap.build(source, target)
    way = align(vocab, source, target, vocab.new, kind)
    missing = {int(index): 2 + number % 2 for number, index in enumerate(vocab.new)}
    start = (source.bos_token_id, target.bos_token_id) if bos else None
    made, state = model(len(source)), torch.get_rng_state()
    found = sample_snippets(made, vocab, way, missing, length=14, start=start, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    if kind == "merge":
        assert found.counts(missing).tolist() == list(missing.values())
    else:
        assert len(found) >= 0.5 * sum(missing.values())  # running on, the text may be cut otherwise
    for row, token in zip(found.rows, found.tokens, strict=True):
        head = int(bos)
        assert row[1, head] == token
        if kind == "merge":
            pieces = vocab.pieces(token)
            assert row[0, head : head + len(pieces)].tolist() == pieces and row[2, head] == head + len(pieces)
    again = sample_snippets(model(len(source)), vocab, way, missing, length=14, start=start, seed=3)
    assert np.array_equal(again.rows, found.rows) and again.fingerprint == found.fingerprint


def test_sampling_follows_the_model() -> None:
    """Frequencies of the second written token against its probabilities given the first, without a cache."""
    made = model(8)
    ids = _continued(made, torch.full((3000, 1), 3), 3, 8, torch.Generator().manual_seed(0))
    assert ids.shape == (3000, 3) and (ids[:, 0] == 3).all()
    with torch.no_grad():
        first = made(input_ids=torch.tensor([[3]])).logits[0, -1].softmax(-1)
        top = int(first.argmax())
        second = made(input_ids=torch.tensor([[3, top]])).logits[0, -1].softmax(-1)
    counts = torch.bincount(ids[ids[:, 1] == top, 2], minlength=8)
    assert counts.sum() > 300
    torch.testing.assert_close(counts / counts.sum(), second, atol=0.08, rtol=0)
