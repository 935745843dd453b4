"""Linear probes: the ridge solution, the choice of its strength, and states text by text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_language_models import TEXT, model_for, tokenizer_for

from warmstart.evaluation.linear_probe import linear_probe, token_states
from warmstart.evaluation.special import start_token, surrounding
from warmstart.foundation.errors import UserError

Part = tuple[np.ndarray, np.ndarray]


def parts(seed: int = 0, noise: float = 1.5, classes: int = 4, width: int = 6) -> list[Part]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width))
    names = np.array([f"label {c}" for c in range(classes)])
    found = []
    for size in (120, 60, 90):
        label = rng.integers(0, classes, size)
        found.append((centres[label] + noise * rng.normal(size=(size, width)) + 5, names[label]))
    return found


def by_hand(train: Part, part: Part, ridge: float) -> float:
    """Solve the normal equations with an intercept column that is not shrunk."""
    mean, spread = train[0].mean(0), train[0].std(0)
    x = np.column_stack([(train[0] - mean) / spread, np.ones(len(train[0]))])
    classes = sorted(set(train[1]))
    y = (train[1][:, None] == np.array(classes)).astype(float)
    shrink = ridge * len(x) * np.diag([*np.ones(x.shape[1] - 1), 0])
    weights = np.linalg.solve(x.T @ x + shrink, x.T @ y)
    scores = np.column_stack([(part[0] - mean) / spread, np.ones(len(part[0]))]) @ weights
    return float((np.array(classes)[scores.argmax(1)] == part[1]).mean())


@pytest.mark.parametrize("ridge", [1e-4, 0.03, 2.0])
def test_the_probe_is_the_ridge_solution(ridge: float) -> None:
    train, valid, test = parts()
    found = linear_probe(train, valid, test, [ridge])
    assert found.accuracy == by_hand(train, test, ridge) and 0.3 < found.accuracy < 1
    usual = max(sorted(set(train[1])), key=lambda name: (train[1] == name).sum())
    assert found.majority == (test[1] == usual).mean()
    assert (found.classes, found.train, found.test, found.ridge) == (4, 120, 90, ridge)


def test_the_ridge_is_the_best_on_valid_text() -> None:
    """In as many dimensions as examples it matters; test text has no say."""
    train, valid, test = parts(seed=4, noise=9.0, width=110)
    ridges = [1e-6, 1e-2, 1.0, 30.0]
    scores = {ridge: by_hand(train, valid, ridge) for ridge in ridges}
    assert len(set(scores.values())) > 1
    found = linear_probe(train, valid, test, ridges[::-1])
    assert found.ridge == max(ridges, key=lambda ridge: scores[ridge])
    assert found.accuracy == by_hand(train, test, found.ridge)


def test_dimensions_without_spread_and_foreign_labels_do_no_harm() -> None:
    train, valid, test = parts()
    wider = [(np.column_stack([x, np.full(len(x), 7.0)]), y) for x, y in (train, valid, test)]
    assert linear_probe(*wider).accuracy == linear_probe(train, valid, test).accuracy
    foreign = (test[0], np.full(len(test[1]), "unheard of"))
    assert linear_probe(train, valid, foreign).accuracy == 0
    with pytest.raises(UserError, match="all examples have label 1"):
        linear_probe((train[0], np.full(120, "label 1")), valid, test)
    with pytest.raises(UserError, match="needs examples"):
        linear_probe(train, (valid[0][:0], valid[1][:0]), test)


@pytest.mark.parametrize(("family", "task"), [("llama", "causal"), ("gpt2", "causal"), ("bert", "masked")])
def test_states_are_those_of_each_text_alone(family: str, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is batched with, without the special tokens around it."""
    monkeypatch.setattr("warmstart.evaluation.linear_probe._POSITIONS", 70)
    tokenizer = tokenizer_for(family)
    model = model_for(family, len(tokenizer), positions=128).double().eval()
    texts = [text[: 5 + 4 * i] for i, text in enumerate(TEXT)]
    for layer in (None, 0, -1):
        found = token_states(model, tokenizer, texts, task=task, layer=layer)
        for text, states in zip(texts, found, strict=True):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            before, after = ([start_token(tokenizer)], []) if task == "causal" else surrounding(tokenizer)
            with torch.no_grad():
                every = model.base_model(
                    input_ids=torch.tensor([[*before, *ids, *after]]), output_hidden_states=True
                ).hidden_states
            own = every[len(every) // 2 if layer is None else layer][0, len(before) : len(before) + len(ids)]
            np.testing.assert_allclose(states, own.numpy(), atol=1e-5)
    with pytest.raises(UserError, match="no layer 9"):
        token_states(model, tokenizer, texts, task=task, layer=9)
    with pytest.raises(UserError, match=r"a text has \d+ tokens and the model sees 4"):
        token_states(model, tokenizer, texts, task=task, context_length=4)
    with pytest.raises(UserError, match="seq2seq models are not probed"):
        token_states(model, tokenizer, texts, task="seq2seq")
