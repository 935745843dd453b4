"""Logistic regression at its minimum, scores against loops, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from warmstart.evaluation.classification import Classifier, fit, fit_best, macro_f1, scores
from warmstart.foundation.errors import UserError


def world(count: int = 300, width: int = 6, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(["a", "b", "c"], count, p=[0.6, 0.3, 0.1])
    centres = np.random.default_rng(9).standard_normal((3, width))
    vectors = 100 + 7 * (
        centres[np.searchsorted(["a", "b", "c"], labels)] + rng.standard_normal((count, width))
    )
    return vectors, labels.tolist()


def test_the_fit_is_the_minimum_of_its_loss() -> None:
    """No gradient by autograd is left at the solution, and a twin trained long by Adam ends there too."""
    vectors, labels = world()
    made = fit(vectors, labels, 0.03)
    x = torch.from_numpy((vectors - vectors.mean(axis=0)) / vectors.std(axis=0))
    y = torch.tensor([made.labels.index(label) for label in labels])

    def loss(w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(x @ w + b, y) + 0.015 * w.square().sum()

    w, b = (torch.from_numpy(a).clone().requires_grad_() for a in (made.weights, made.bias))
    reached = loss(w, b)
    reached.backward()
    assert w.grad is not None and b.grad is not None
    assert max(float(w.grad.abs().max()), float(b.grad.abs().max())) < 1e-5
    twin = [torch.ones(6, 3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)]
    for _ in range(300):  # plain descent from another place
        grads = torch.autograd.grad(loss(*(t.requires_grad_() for t in twin)), twin)
        twin = [(t - 1.0 * g).detach() for t, g in zip(twin, grads)]
    assert loss(*twin).item() == pytest.approx(reached.item(), abs=1e-6)
    np.testing.assert_allclose(twin[0].numpy(), made.weights, atol=1e-2)
    logits = (vectors[5] - made.shift) / made.scale @ made.weights + made.bias
    own = math.log(math.exp(logits[1]) / sum(math.exp(v) for v in logits))
    assert made.log_probabilities(vectors[5:6])[0, 1] == pytest.approx(own, rel=1e-12)


def test_size_and_place_of_the_vectors_do_not_matter_and_dead_dimensions_do_no_harm() -> None:
    vectors, labels = world()
    plain, moved = fit(vectors, labels, 0.1), fit(1e-4 * vectors - 3, labels, 0.1)
    held_out = world(seed=1)[0]
    assert plain.predict(held_out) == moved.predict(1e-4 * held_out - 3)
    dead = np.concatenate([vectors, np.full((len(vectors), 1), 5.0)], axis=1)
    with_dead = fit(dead, labels, 0.1)
    np.testing.assert_allclose(with_dead.weights[:-1], plain.weights, atol=1e-6)
    assert not with_dead.weights[-1].any()


def test_scores_are_those_of_plain_counting() -> None:
    vectors, labels = world()
    made = fit(vectors, labels, 0.1)
    other, right = world(seed=3)
    right[4] = "never seen"
    found = scores(made, other, right)
    answers = [a for a, r in zip(made.predict(other), right) if r != "never seen"]
    right = [r for r in right if r != "never seen"]

    def slow(given: list[str]) -> tuple[float, float]:
        each = []
        for name in sorted({*given, *right}):
            tp = sum(g == r == name for g, r in zip(given, right))
            fp = sum(g == name != r for g, r in zip(given, right))
            fn = sum(r == name != g for g, r in zip(given, right))
            each.append(2 * tp / (2 * tp + fp + fn))
        return sum(g == r for g, r in zip(given, right)) / len(right), sum(each) / len(each)

    assert (found.accuracy, found.macro_f1) == pytest.approx(slow(answers))
    assert (found.chance, found.chance_f1) == pytest.approx(slow(["a"] * len(right)))
    assert found.accuracy > found.chance + 0.1 and found.macro_f1 > found.chance_f1 + 0.3
    assert macro_f1(["a", "a"], ["b", "b"]) == 0


def test_noise_scores_chance() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(["x", "y"], 2400, p=[0.7, 0.3]).tolist()
    vectors = rng.standard_normal((2400, 4))
    parts = [(vectors[i : i + 800], labels[i : i + 800]) for i in (0, 800, 1600)]
    found = scores(fit_best(parts[0], parts[1]), *parts[2])
    assert abs(found.accuracy - found.chance) < 0.03


def test_the_decay_is_chosen_on_the_valid_texts() -> None:
    """Forty vectors in thirty dimensions: the weakest decay overfits, and valid texts tell."""
    rng = np.random.default_rng(0)

    def drawn(count: int) -> tuple[np.ndarray, list[str]]:
        vectors = rng.standard_normal((count, 30))
        return vectors, ["yes" if v > 0 else "no" for v in vectors[:, 0] + 0.2 * rng.standard_normal(count)]

    train, valid = drawn(40), drawn(400)
    decays = (1e-5, 1e-1, 1e3)
    chosen = fit_best(train, valid, decays)

    def value(made: Classifier) -> float:
        place = [made.labels.index(label) for label in valid[1]]
        return float(made.log_probabilities(valid[0])[np.arange(400), place].mean())

    values = {decay: value(fit(*train, decay)) for decay in decays}
    assert chosen.decay == max(values, key=lambda d: values[d]) == 1e-1
    assert values[1e-1] > values[1e-5] + 0.5


def test_a_fit_is_what_scikit_learn_finds() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    vectors, labels = world()
    made = fit(vectors, labels, 0.05)
    x = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0)
    twin = linear_model.LogisticRegression(C=1 / (0.05 * len(labels)), tol=1e-8, max_iter=5000).fit(x, labels)
    np.testing.assert_allclose(made.weights, twin.coef_.T, atol=2e-4)


def test_bad_input_is_one_sentence() -> None:
    vectors, labels = world(20)
    for bad in (
        lambda: fit(vectors, ["a"] * 20, 0.1),
        lambda: fit(vectors, labels[:5], 0.1),
        lambda: fit(vectors * np.nan, labels, 0.1),
        lambda: scores(fit(vectors, labels, 0.1), vectors, ["z"] * 20),
    ):
        with pytest.raises(UserError, match="classification"):
            bad()


@pytest.mark.parametrize("family", ["causal", "masked", "bytes"])
def test_the_step_measures_own_texts_and_others(family: str, tmp_path: Path) -> None:
    """Texts of two alphabets: told apart, also where word order says otherwise; the same numbers twice."""
    from warmstart.recipes.runner import Runner

    rng = np.random.default_rng(0)

    def lines(words: dict[str, str], count: int) -> list[str]:
        labels = rng.choice(list(words), count)
        return [
            " ".join(rng.choice(words[label].split(), 5)) + f" {i}\t{label}" for i, label in enumerate(labels)
        ]

    own = {"plain": "the old cat sees a small dog", "loud": "THE OLD CAT SEES A SMALL DOG"}
    paths = {"own": own, "other": {"plain": "a river ran by", "loud": "A RIVER RAN BY"}}
    for name, words in paths.items():
        (tmp_path / f"{name}.tsv").write_text("\n".join(["text\tlabel", *lines(words, 200)]))
    runner = Runner(tmp_path / "cache")
    kind = {"causal": "bpe", "masked": "wordpiece", "bytes": "bytes"}[family]
    size = {} if kind == "bytes" else {"vocab_size": 300}
    tokenizer = runner.step(
        "tokenizer",
        {"corpus": str(tmp_path / "own.tsv"), "kind": kind, **size}
        | ({"lowercase": False} if kind == "wordpiece" else {}),
    )
    model = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model |= {"model_type": "bert" if family == "masked" else "llama", "max_position_embeddings": 64}
    source = runner.step("initialise", {"tokenizer": str(tokenizer), "config": model})
    settings = {
        "source": str(source),
        "labelled": str(tmp_path / "own.tsv"),
        "transfer": str(tmp_path / "other.tsv"),
        "max_train": 100,
        "max_test": 30,
        "max_length": 32,
    }
    (file,) = runner.step("classify", settings).glob("*.json")
    found = json.loads(file.read_text())
    assert all(isinstance(value, int | float) for value in found.values())
    assert found["accuracy"] > 0.9 > found["chance"] and found["labels"] == 2
    assert found["train_texts"] == 100 and found["test_texts"] <= 30 and found["transfer_texts"] <= 30
    assert {"transfer_accuracy", "transfer_macro_f1", "transfer_chance"} <= set(found)
    (again,) = Runner(tmp_path / "second").step("classify", settings).glob("*.json")
    assert json.loads(again.read_text()) == found
