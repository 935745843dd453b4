"""Hard but learnable blocks: scores against a loop over tokens, and which are kept."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
import torch
from tiny_language_models import model_for

import warmstart.evaluation.cross_entropy as cross_entropy
from warmstart.evaluation.learnable import learnable_scores, most_learnable
from warmstart.foundation.errors import UserError

VOCAB, LENGTH = 60, 20


def blocks(count: int = 9) -> np.ndarray:
    ids = np.random.default_rng(0).integers(4, VOCAB, (count, LENGTH))
    ids[3, 12:] = -1  # padding
    ids[5, 1:] = -1  # nothing to predict
    return ids


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("k", [1, 10, VOCAB])
def test_equals_a_loop_over_tokens(family: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_entropy, "chunk_size", lambda tokens, vocab: 7)
    model = model_for(family, VOCAB).train()
    found = learnable_scores(model, blocks(), k=k, rows=4)
    assert model.training and found.dtype == np.float64
    for score, row in zip(found, blocks(), strict=True):
        ids = [int(i) for i in row if i >= 0]
        model.eval()
        logits = model(input_ids=torch.tensor([ids])).logits[0].tolist()
        losses = []
        for place in range(len(ids) - 1):
            true = logits[place][ids[place + 1]]
            if sorted(logits[place], reverse=True).index(true) < k:
                losses.append(math.log(sum(math.exp(x) for x in logits[place])) - true)
        if losses:
            assert score == pytest.approx(statistics.median(losses), rel=1e-10 if family == "llama" else 1e-6)
        else:
            assert math.isnan(score)
    assert math.isnan(found[5])
    assert (np.isnan(found).sum() > 1) == (k == 1)  # so small a k leaves blocks without a score


def test_the_highest_are_kept() -> None:
    scores = np.array([0.3, np.nan, 2.0, 0.3, 1.0, np.nan])
    assert most_learnable(scores, 0.5).tolist() == [0, 2, 4]  # of the equal ones the earlier
    assert most_learnable(scores, 0.01).tolist() == [2]
    assert most_learnable(scores, 1.0).tolist() == [0, 2, 3, 4]
    with pytest.raises(UserError, match="give one in"):
        most_learnable(scores, 0)
    with pytest.raises(UserError, match="a larger k"):
        most_learnable(np.full(3, np.nan), 0.5)
