"""Made-up speech as recipe steps: files that fit together, training on them, and what is measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "vocabulary"))
from vocab_families import FAMILIES, random_model
from vocab_tokenizers import plain

from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.corpus import Document, open_corpus, open_pairs
from warmstart.foundation.errors import UserError
from warmstart.recipes.operations.linear_probe import labelled
from warmstart.recipes.operations.synthetic_speech import code_names
from warmstart.recipes.runner import Runner

WORLD = {"codes": 24, "contents": 5, "speakers": 2, "frames": 16, "train": 60, "held_out": 12, "pairs": 9}
WORLD |= {"branching": 2, "noise": 0.5}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A random decoder, its speech, and the decoder with codes."""
    from transformers import AutoConfig

    torch.set_num_threads(1)
    root, tokenizer = tmp_path_factory.mktemp("speech"), plain("bpe", 300, 0)
    kind, task, _, sizes = FAMILIES["qwen3"]
    ids = {"bos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(kind, **sizes, vocab_size=len(tokenizer), tie_word_embeddings=True, **ids)
    model = random_model(config, task, torch.float32)
    save_checkpoint(root / "source", model, tokenizer, lineage=Lineage.of("test"))
    runner = Runner(root / "cache")
    speech = runner.step("synthetic-speech", {"source": str(root / "source"), **WORLD})
    initialiser = {
        "name": "features",
        "file": str(speech / "features.npz"),
        "codebook": str(speech / "codebook.npz"),
    }
    start = runner.step(
        "transplant",
        {"source": str(root / "source"), "tokenizer": str(speech / "tokenizer"), "initialiser": initialiser},
    )
    return {"runner": runner, "speech": speech, "start": start, "source": root / "source"}


def test_texts_are_codes_with_one_content_each_and_bytes_alike(made: dict[str, Any]) -> None:
    tokenizer = resolve(str(made["start"])).load_tokenizer()
    corpus = open_corpus({"path": str(made["speech"] / "text"), "metadata_fields": ("content", "speaker")})
    names = {tokenizer.convert_tokens_to_ids(name): i for i, name in enumerate(code_names(24))}
    counts = {split: count["documents"] for split, count in corpus.statistics().items()}
    assert counts == {"train": 60, "valid": 12, "test": 12}
    for document in corpus.documents("test"):
        ids = tokenizer(document.text, add_special_tokens=False)["input_ids"]
        assert len(ids) == 16 == len(document.metadata["content"]) and set(ids) <= set(names)
        assert len(document.text.encode()) == 16 * len("<s00>") and document.metadata["speaker"] in (0, 1)
    for kept, other in open_pairs(made["speech"] / "pairs.tsv"):
        assert kept[: 8 * 5] == other[: 8 * 5] and len(kept) == len(other) == 80
    with np.load(made["speech"] / "features.npz") as file:
        assert set(file["words"]) <= set(code_names(24)) and file["vectors"].shape[1] == 32
    old = resolve(str(made["source"])).load_model().get_input_embeddings().weight
    new = resolve(str(made["start"])).load_model().get_input_embeddings().weight
    assert torch.equal(new[: len(old)], old) and new[len(old) :].std(0).min() > 0


def test_training_with_the_losses_leaves_a_plain_model(made: dict[str, Any]) -> None:
    objective = {"name": "speech-codes", "features": str(made["speech"] / "features.npz"), "classes": 6}
    values = {
        "source": str(made["start"]),
        "corpus": str(made["speech"] / "text"),
        "objective": objective,
        "block_size": 16,
        "max_steps": 40,
        "learning_rate": 1e-2,
        "eval_points": [],
        "eval_max_bytes": 600,
    }
    done = made["runner"].step("train", values)
    points = json.loads((done / "training.json").read_text())["points"]
    assert points[-1]["bpb"] < points[0]["bpb"] - 0.5
    before, after = (dict(resolve(str(p)).load_model().named_parameters()) for p in (made["start"], done))
    assert before.keys() == after.keys(), "what learned beside the model is gone"
    numbers = {}
    for label, kind, settings in (
        ("content", "linear-probe", {"corpus": str(made["speech"] / "text"), "labels": "content"}),
        ("speaker", "linear-probe", {"corpus": str(made["speech"] / "text"), "labels": "speaker"}),
        ("pairs", "minimal-pairs", {"parallel": str(made["speech"] / "pairs.tsv")}),
    ):
        (file,) = made["runner"].step(kind, {"source": str(done), **settings}).glob("*.json")
        numbers[label] = json.loads(file.read_text())
    assert numbers["content"]["train"] == 60 * 16 and numbers["content"]["classes"] == 5
    assert numbers["content"]["accuracy"] > numbers["content"]["majority"] + 0.2
    assert (numbers["speaker"]["train"], numbers["speaker"]["test"]) == (60, 12)
    assert numbers["pairs"]["pairs"] == 9
    assert numbers["pairs"]["bits_per_token"] == pytest.approx(5 * numbers["pairs"]["bits_per_byte"])


def test_labels_of_texts_are_means_and_labels_of_tokens_must_fit() -> None:
    states = [np.arange(6.0).reshape(3, 2), np.ones((2, 2))]

    def documents(*labels: Any) -> list[Document]:
        return [Document("x", f"file:{i}", {"y": label}) for i, label in enumerate(labels)]

    table, labels = labelled(documents([1, 2, 1], [2, 2]), states, "y")
    assert np.array_equal(table, np.concatenate(states)) and labels.tolist() == ["1", "2", "1", "2", "2"]
    table, labels = labelled(documents(7, "b"), states, "y")
    assert table.tolist() == [[2, 3], [1, 1]] and labels.tolist() == ["7", "b"]
    for wrong, words in (
        (documents([1, 2], [2, 2]), r"2 labels in 'y' for 3 tokens \(in file:0\)"),
        (documents(1, [2, 2]), "labels of texts and labels of tokens"),
        (documents(1, None), r"no label in 'y' \(in file:1\)"),
    ):
        with pytest.raises(UserError, match=words):
            labelled(wrong, states, "y")


def test_what_cannot_be_made_is_said(made: dict[str, Any]) -> None:
    runner = made["runner"]
    with pytest.raises(UserError, match="'<s00>' is a token of the source already"):
        runner.step("synthetic-speech", {"source": str(made["start"]), **WORLD})
    with pytest.raises(UserError, match=r"'<s00>' has a feature and is no token"):
        runner.step(
            "train",
            {
                "source": str(made["source"]),
                "corpus": str(made["speech"] / "text"),
                "objective": {"name": "speech-codes", "features": str(made["speech"] / "features.npz")},
                "max_steps": 1,
                "block_size": 16,
            },
        )
