"""Training a classifier of texts, from its step to the model that transformers opens."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "vocabulary"))
from vocab_families import FAMILIES
from vocab_tokenizers import plain, sentences

from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.checkpoint.classifier import labels_of, open_classifier
from warmstart.foundation.errors import UserError
from warmstart.recipes.operations import train_classifier as step
from warmstart.recipes.operations.train_classifier import TrainClassifierSettings
from warmstart.recipes.runner import Runner

WORDS = ("high", "low", "odd")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder, and texts whose first word tells the label."""
    from transformers import AutoConfig, AutoModelForMaskedLM

    folder = tmp_path_factory.mktemp("classifier")
    tokenizer = plain("wordpiece", 420, 0)
    kind, _, _, sizes = FAMILIES["bert"]
    ids = {"pad_token_id": tokenizer.pad_token_id, "initializer_range": 0.3}
    config = AutoConfig.for_model(kind, **sizes, vocab_size=len(tokenizer), **ids)
    torch.manual_seed(0)
    save_checkpoint(
        folder / "source", AutoModelForMaskedLM.from_config(config), tokenizer, lineage=Lineage.of("test")
    )
    whole = [token for token in sorted(tokenizer.get_vocab()) if token.isalpha() and len(token) > 3]
    assert len(set(whole[:3])) == 3
    texts = [" ".join([whole[i % 3], *text.split()[:3]]) for i, text in enumerate(sentences())]
    lines = [json.dumps({"text": text, "label": WORDS[i % 3]}) for i, text in enumerate(texts)]
    (folder / "labelled.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def world(made: Path, tmp_path: Path) -> dict[str, Any]:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return {
        "source": str(tmp_path / "source"),
        "labelled": str(tmp_path / "labelled.jsonl"),
        "learning_rate": 3e-3,
        "block_size": 16,
        "per_device_train_batch_size": 16,
        "max_steps": 80,
        "eval_points": [],
        "lr_scheduler_type": "constant",
    }


def errors(output: Path) -> list[float]:
    return [point["bpb"] for point in json.loads((output / "training.json").read_text())["points"]]


def test_labels_then_a_teacher_without_any(world: dict[str, Any], tmp_path: Path) -> None:
    runner = Runner(tmp_path / "cache")
    teacher = runner.step("train-classifier", world)
    assert errors(teacher)[-1] < 0.1 < errors(teacher)[0]
    from transformers import AutoModelForSequenceClassification

    opened = AutoModelForSequenceClassification.from_pretrained(teacher)
    assert opened.config.id2label == {0: "high", 1: "low", 2: "odd"}
    pool = [json.loads(line) for line in Path(world["labelled"]).read_text().splitlines()]
    (tmp_path / "pool.jsonl").write_text("\n".join(json.dumps({"text": row["text"]}) for row in pool) + "\n")
    learned = {
        "teacher": str(teacher),
        "transfer": "corpus",
        "corpus": str(tmp_path / "pool.jsonl"),
        "seed": 1,
    }
    taught = {**world, **learned, "divergence": "jensen-shannon", "top_k": 60, "max_labelled": 3}
    student = runner.step("train-classifier", taught)
    assert errors(student)[-1] < 0.1 < errors(student)[0]
    lineage = resolve(str(student)).lineage
    assert lineage is not None and lineage.measured["texts with a label in use"] == 0
    assert lineage.measured["texts"] <= 180 and {parent.role for parent in lineage.parents} >= {"teacher"}


def texts_of(world: dict[str, Any], say: Any, monkeypatch: pytest.MonkeyPatch, **more: Any) -> step._Texts:
    from warmstart.corpus.labelled import labelled

    settings = TrainClassifierSettings.parse({**world, "teacher": "there", **more})
    monkeypatch.setattr(step, "_say", say)
    return step._texts(settings, labelled(world["labelled"], "train"), sorted(WORDS))


def test_which_texts_are_learned_from(world: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from warmstart.corpus.labelled import labelled

    def say(_: Any, texts: list[str], labels: list[str]) -> np.ndarray:
        return np.array([[len(text) / 100, 0, 0] for text in texts], dtype=np.float32)

    whole, held = labelled(world["labelled"], "train"), labelled(world["labelled"], "test")
    label_of = dict(zip(*whole, strict=True))
    known = texts_of(world, say, monkeypatch, max_labelled=20)
    assert len(known.texts) == 20 and known.taught is not None
    assert [sorted(WORDS)[c] for c in known.classes] == [label_of[text] for text in known.texts]
    assert known.taught[:, 0].tolist() == pytest.approx([len(text) / 100 for text in known.texts])
    pool = texts_of(world, say, monkeypatch, max_labelled=20, transfer="train")
    assert set(pool.texts) == set(whole.texts) and int((pool.classes >= 0).sum()) == 20
    few = texts_of(world, say, monkeypatch, max_labelled=20, transfer="train", max_transfer=30)
    assert set(few.texts) < set(pool.texts) and len(few.texts) == 30
    both = texts_of(world, say, monkeypatch, max_labelled=20, transfer="train", max_transfer=30, alpha=0.5)
    assert set(both.texts) == {*few.texts, *known.texts}, "labels that count are always used"
    best = texts_of(world, say, monkeypatch, transfer="train", top_k=7)
    longest = sorted(dict.fromkeys(whole.texts), key=lambda text: -len(text))[:7]
    assert sorted(map(len, best.texts)) == sorted(map(len, longest))
    shouted = [f"  {held.texts[0].upper()} ", held.texts[1], whole.texts[0], "quite another text"]
    path = Path(world["labelled"]).parent / "seen.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in shouted * 40) + "\n")
    clean = texts_of(
        world, say, monkeypatch, transfer="corpus", corpus={"path": str(path), "valid_fraction": 0}
    )
    assert {*clean.texts} <= {whole.texts[0], "quite another text"}, "held-out texts are not learned from"


def test_the_teacher_may_order_labels_otherwise(world: dict[str, Any], tmp_path: Path) -> None:
    source = resolve(world["source"])
    for order in (["high", "low", "odd"], ["odd", "high", "low"]):
        model = open_classifier(source, order, seed=3)
        save_checkpoint(
            tmp_path / order[0], model, source.load_tokenizer(), lineage=Lineage.of("test"), replace=True
        )
    texts = list(sentences()[:5])
    settings = [
        TrainClassifierSettings.parse({**world, "teacher": str(tmp_path / n)}) for n in ("high", "odd")
    ]
    usual, other = (step._say(asked, texts, sorted(WORDS)) for asked in settings)
    assert np.allclose(usual[:, [1, 2, 0]], other, atol=1e-6), "the same head, its outputs named otherwise"
    assert not np.allclose(usual, other, atol=1e-3)


def test_opening_a_classifier(world: dict[str, Any], tmp_path: Path) -> None:
    source = resolve(world["source"])
    assert labels_of(source.config) is None
    first, again, other = (open_classifier(source, WORDS, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    body = source.load_model().base_model.state_dict()
    assert all(torch.equal(value, first.base_model.state_dict()[name]) for name, value in body.items())
    save_checkpoint(tmp_path / "made", first, source.load_tokenizer(), lineage=Lineage.of("test"))
    made = resolve(str(tmp_path / "made"))
    assert labels_of(made.config) == list(WORDS)
    for labels in (None, WORDS):
        assert torch.equal(open_classifier(made, labels, seed=9).classifier.weight, first.classifier.weight)
    fresh = open_classifier(made, ["yes", "no"], seed=9)
    assert fresh.classifier.weight.shape[0] == 2 and fresh.config.id2label == {0: "yes", 1: "no"}
    assert torch.equal(fresh.bert.pooler.dense.weight, first.bert.pooler.dense.weight)
    with pytest.raises(UserError, match="no classifier of texts"):
        open_classifier(source)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"top_k": 3}, "top_k needs a teacher"),
        ({"alpha": 0.0}, "neither labels nor a teacher count"),
        ({"teacher": "t", "beta": 0.0}, "neither labels nor a teacher count"),
        ({"teacher": "t", "transfer": "corpus"}, "transfer: corpus needs texts"),
        ({"objective": "masked"}, "no other objective"),
    ],
)
def test_what_cannot_be_learned_from(world: dict[str, Any], more: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        step._checked(TrainClassifierSettings.parse({**world, **more}))


def test_a_teacher_of_other_labels(world: dict[str, Any]) -> None:
    settings = TrainClassifierSettings.parse({**world, "teacher": world["source"]})
    with pytest.raises(UserError, match=r"the teacher knows the labels \(none\), and the texts have high"):
        step._say(settings, ["a"], sorted(WORDS))
