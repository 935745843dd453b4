"""Steps that measure a checkpoint's rows, and those into and out of factorised ones, on tiny real models."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warmstart.checkpoint import resolve
from warmstart.foundation.errors import UserError
from warmstart.recipes.operations.mdl_probe import MdlProbeSettings
from warmstart.recipes.probing import examples, probe_rows
from warmstart.recipes.runner import Runner, run_recipe
from warmstart.recipes.schema import Recipe
from warmstart.vocabulary.factorised_model import input_rows

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = ["the", "cat", "dog", "house", "sees", "small", "green", "big", "old", "runs", "over", "river"]
CIPHERED = {"unit": "line", "valid_fraction": 0.15, "test_fraction": 0.15}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A source of plain words and a transplant to their cipher, from dense and from factorised rows."""
    root = tmp_path_factory.mktemp("rows")
    rng, text = random.Random(1), root / "text.txt"
    text.write_text("".join(" ".join(rng.choice(WORDS) for _ in range(60)) + ".\n" for _ in range(60)))
    plain, secret = (
        {"path": str(text), **CIPHERED},
        {"path": "cipher/words", "options": {"of": str(text)}, **CIPHERED},
    )
    train = {"max_tokens": 600, "block_size": 32, "per_device_train_batch_size": 4, "eval_max_bytes": 1000}
    made = {"type": "transplant", "tokenizer": "${secret}", "initialiser": "mean-of-pieces"}
    steps = {
        "plain": {"type": "tokenizer", "corpus": plain, "vocab_size": 330},
        "start": {"type": "initialise", "tokenizer": "${plain}", "config": {"model_type": "llama", **SIZES}},
        "source": {"type": "train", "source": "${start}", "corpus": plain, **train},
        "secret": {"type": "tokenizer", "corpus": secret, "like": "${source}", "vocab_size": 340},
        "wide": {**made, "source": "${source}"},
        "narrow": {"type": "factorise", "source": "${source}", "rank": 32},
        "moved": {**made, "source": "${narrow}"},
        "trained": {"type": "train", "source": "${moved}", "corpus": secret, **train},
        "dense": {"type": "export", "source": "${trained}"},
    }
    done = run_recipe(Recipe.parse({"name": "tiny-rows", "steps": steps}), root / "run", cache=root / "cache")
    return {"done": done, "text": text, "root": root, "runner": Runner(root / "cache"), "secret": secret}


def test_training_measuring_and_generating_take_a_factorised_checkpoint(world: dict[str, Any]) -> None:
    done = world["done"]
    for name in ("narrow", "moved", "trained"):
        assert resolve(done[name]).form == {"form": "factorised", "rank": 32, "tied": False}
    before, after = (resolve(done[name]).load_model() for name in ("moved", "trained"))
    for part in ("weight", "primitives"):
        pair = [getattr(m.get_input_embeddings(), part).detach() for m in (before, after)]
        assert not pair[0].equal(pair[1]), "both factors are trained"
    dense = resolve(done["dense"])
    assert dense.form is None and dense.lineage is not None
    np.testing.assert_allclose(input_rows(dense.load_model()), input_rows(after), atol=1e-6)
    bits = []
    for source in (done["trained"], done["dense"]):
        settings = {"source": str(source), "corpus": world["secret"], "eval_max_bytes": 2000}
        output = world["runner"].step("evaluate", settings)
        bits.append(json.loads((output / "evaluation.json").read_text())["bits_per_byte"])
    assert bits[0] == pytest.approx(bits[1], rel=1e-5) and 0 < bits[0] < 8


def test_gold_rows_judge_the_true_rows_perfect_whatever_the_form(world: dict[str, Any]) -> None:
    def gold(source: Path, reference: Path) -> dict[str, float]:
        settings = {"source": str(source), "reference": str(reference), "truth": str(world["text"])}
        return json.loads((world["runner"].step("gold-rows", settings) / "gold.json").read_text())

    done = world["done"]
    wide, moved = gold(done["wide"], done["source"]), gold(done["moved"], done["source"])
    assert wide["tokens"] == moved["tokens"] > 5 and wide["cosine"] < 0.99
    for key in ("cosine", "centred", "hidden"):
        assert wide[key] == pytest.approx(moved[key], abs=1e-4), "mixing coordinates is mixing rows"
    with pytest.raises(UserError, match="no token of the new vocabulary is a whole word"):
        gold(done["source"], done["source"])


def labelled_file(folder: Path) -> Path:
    """Texts of two kinds of words, by their label."""
    rng, path = random.Random(0), folder / "texts.tsv"
    lines = ["text\tlabel"]
    for _ in range(300):
        label = rng.choice("ab")
        words = WORDS[:6] if label == "a" else WORDS[6:]
        lines.append(" ".join(rng.choice(words) for _ in range(3)) + f"\t{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_probe_reads_input_rows(world: dict[str, Any], tmp_path: Path) -> None:
    settings = {
        "labels": str(labelled_file(tmp_path)),
        "max_examples": 200,
        "max_epochs": 20,
        "learning_rate": 0.01,
    }
    found = {}
    for name in ("source", "narrow"):
        step = settings | {"source": str(world["done"][name])}
        output = world["runner"].step("mdl-probe", step)
        found[name] = json.loads((output / "mdl.json").read_text())
    one = found["source"]
    assert (one["examples"], one["classes"], one["uniform_bits"]) == (200, 2, 200)
    assert (
        one["frozen_bits"] < 0.7 * one["frequency_bits"] and one["tuned_bits"] < 0.7 * one["frequency_bits"]
    )
    assert one["frozen_compression"] == pytest.approx(200 / one["frozen_bits"])
    for key, value in found["narrow"].items():
        assert value == pytest.approx(one[key], rel=1e-3), "factors of full rank are the same rows"


def test_words_and_examples_are_the_same_for_all(world: dict[str, Any], tmp_path: Path) -> None:
    path = str(labelled_file(tmp_path))
    words = examples(path, "words", 100, 0)
    assert dict(zip(words.texts, words.labels, strict=True)) == {
        f" {word}": "ab"[place >= 6] for place, word in enumerate(WORDS)
    }
    assert examples(path, "texts", 20, 1) == examples(path, "texts", 20, 1) != examples(path, "texts", 20, 2)
    with pytest.raises(UserError, match="leave `unit` out"):
        examples("python-tokens", "words", 5, 0)
    with pytest.raises(UserError, match="no labelled texts are called 'langauges'; did you mean 'languages'"):
        probe_rows(MdlProbeSettings(source=str(world["done"]["source"]), labels="langauges"))


def test_only_what_is_factorised_can_be_made_dense(world: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="an ordinary checkpoint"):
        world["runner"].step("export", {"source": str(world["done"]["wide"])})
    with pytest.raises(UserError, match="choose 1 to 32"):
        world["runner"].step("factorise", {"source": str(world["done"]["wide"]), "rank": 33})
