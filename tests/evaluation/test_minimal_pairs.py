"""Pairs of texts judged by their likelihood, against the loss of each text on its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny_language_models import TEXT, model_for, tokenizer_for
from torch.nn import functional as F

from warmstart.evaluation.minimal_pairs import minimal_pairs
from warmstart.evaluation.special import start_token
from warmstart.foundation.errors import UserError


def test_the_cheaper_text_wins_in_bits_or_per_byte() -> None:
    tokenizer = tokenizer_for("llama")
    model = model_for("llama", len(tokenizer), positions=128).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # losses far apart

    def bits(text: str) -> tuple[float, int]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[start_token(tokenizer), *ids[:-1]]])).logits[0]
        return float(F.cross_entropy(logits, torch.tensor(ids), reduction="sum")) / math.log(2), len(ids)

    words = " ".join(TEXT[:2]).split()
    rng = np.random.default_rng(0)
    pairs = [tuple(" ".join(rng.permutation(words)[:n]) for n in rng.integers(2, 7, 2)) for _ in range(24)]
    costs = np.array([[bits(text)[0] for text in pair] for pair in pairs])
    sizes = np.array([[len(text.encode()) for text in pair] for pair in pairs])
    found = minimal_pairs(model, tokenizer, pairs, task="causal", context_length=128)
    assert found.accuracy == (costs[:, 0] < costs[:, 1]).mean() and found.pairs == 24
    assert found.gap == pytest.approx((costs[:, 1] - costs[:, 0]).mean(), rel=1e-4)
    tokens = sum(bits(first)[1] for first, _ in pairs)
    assert found.bits_per_token == pytest.approx(costs[:, 0].sum() / tokens, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(costs[:, 0].sum() / sizes[:, 0].sum(), rel=1e-5)
    each = minimal_pairs(model, tokenizer, pairs, task="causal", context_length=128, per_byte=True)
    expected = (costs / sizes)[:, 0] < (costs / sizes)[:, 1]
    assert each.accuracy == expected.mean() != found.accuracy
    even = minimal_pairs(model, tokenizer, [("same", "same")], task="causal", context_length=128)
    assert even.accuracy == 0.5 and even.gap == 0


def test_what_cannot_be_judged() -> None:
    tokenizer = tokenizer_for("llama")
    model = model_for("llama", len(tokenizer))
    with pytest.raises(UserError, match="this is a masked one"):
        minimal_pairs(model, tokenizer, [("a", "b")], task="masked")
    with pytest.raises(UserError, match="no pair"):
        minimal_pairs(model, tokenizer, [], task="causal")
