"""Classifiers of texts: logits, and the texts of which they are most certain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from warmstart.evaluation.classifier import class_logits, error_rate, most_certain
from warmstart.foundation.errors import UserError


class Letters:
    pad_token_id = 0

    def __call__(self, texts: list[str], *, max_length: int, **_: Any) -> dict[str, list[list[int]]]:
        return {"input_ids": [[1, *(ord(c) - 95 for c in text)][:max_length] for text in texts]}


def test_logits_are_those_of_each_text_alone() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        num_labels=4,
        initializer_range=0.3,
    )
    model = BertForSequenceClassification(config).double()
    model.train()
    tokenizer: Any = Letters()
    texts = ["abc", "a", "zzzzzzzzzz", "hello", "", "abc"]
    found = class_logits(model, tokenizer, texts, batch_tokens=12, max_length=20)
    assert model.training, "the mode came back"
    assert found.shape == (6, 4) and found[0].tolist() == pytest.approx(found[5].tolist(), rel=1e-6)
    model.eval()
    for text, row in zip(texts, found, strict=True):
        ids = torch.tensor([[1, *(ord(c) - 95 for c in text)][:8]])
        assert row.tolist() == pytest.approx(model(input_ids=ids).logits[0].tolist(), rel=1e-5)
    with pytest.raises(UserError, match="no text"):
        class_logits(model, tokenizer, [])


def test_error_rate() -> None:
    logits = np.array([[2.0, 1.0], [0.0, 1.0], [3.0, -1.0], [0.0, 0.5]])
    assert error_rate(logits, np.array([0, 0, 0, 1])) == 0.25


def test_the_most_certain_of_each_predicted_class() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        logits = rng.normal(size=(int(rng.integers(1, 40)), 3), scale=3)
        k = int(rng.integers(1, 8))
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        kept: list[int] = []
        for label in range(3):
            members = [i for i in range(len(logits)) if max(range(3), key=lambda c: logits[i, c]) == label]
            kept += sorted(members, key=lambda i: -shares[i].max())[:k]
        assert most_certain(logits, k).tolist() == sorted(kept)


def test_the_earlier_of_equally_certain_texts_is_kept() -> None:
    assert most_certain(np.array([[0.0, 1.0], [5.0, 6.0], [0.0, 1.0], [1.0, 0.0]]), 2).tolist() == [0, 1, 3]
