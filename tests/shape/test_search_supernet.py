"""Training with masks, the front of what was trained, and its sub-networks as checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from shape_files import stored, tensors
from tiny_language_models import TEXT

from warmstart.checkpoint import resolve
from warmstart.corpus import CorpusSettings, open_corpus
from warmstart.evaluation import bits_per_byte
from warmstart.foundation.errors import UserError
from warmstart.recipes.runner import Runner
from warmstart.recipes.training_step import held_out_sample

MASKS: dict[str, Any] = {"heads": {"min": 1}, "units": {"min": 8, "step": 8}}
TRAIN = {"max_tokens": 1024, "block_size": 32, "per_device_train_batch_size": 4, "eval_max_bytes": 400}
MEASURE = {"calibration_tokens": 64, "block_size": 32, "eval_max_bytes": 1000}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(60):
        line = f"{TEXT[number % len(TEXT)]} {number} {TEXT[(number * 3 + 1) % len(TEXT)]}"
        (folder / f"{number:02}.txt").write_text(line)
    return folder


def run(kind: str, folder: Path, source: Path, texts: Path, **settings: Any) -> Path:
    usual = TRAIN if kind.startswith("train") else MEASURE
    plain = {"source": str(source), "corpus": str(texts), "masks": MASKS, **usual, **settings}
    return Runner(folder / "cache").step(kind, plain)


def read(output: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / f"{name}.json").read_text())
    return found


def bpb(folder: Path, texts: Path) -> float:
    made = resolve(folder)
    documents = open_corpus(CorpusSettings(path=str(texts))).documents("valid")
    return bits_per_byte(
        made.load_model(),
        made.load_tokenizer(),
        held_out_sample(documents, 1000),
        task=made.task,
        context_length=32,
    ).bpb


def test_a_super_network_is_trained_and_searched(texts: Path, tmp_path: Path) -> None:
    source = stored(tmp_path / "source", "llama")
    trained = run("train-supernet", tmp_path, source, texts)
    plain = run(
        "train-supernet", tmp_path, source, texts, objective={"name": "supernet", "strategy": "standard"}
    )
    assert any(not torch.equal(t, tensors(plain)[name]) for name, t in tensors(trained).items())
    curves = [read(folder, "training")["points"][-1] for folder in (trained, plain)]
    assert curves[0]["tokens"] == curves[1]["tokens"]
    assert curves[0]["flops"] == pytest.approx(4 * curves[1]["flops"]), "every network of a step is counted"
    settings = {"search": "local", "evaluations": 8, "test_split": "valid"}
    front = read(run("pareto", tmp_path, trained, texts, **settings), "pareto")
    assert front["measured"] == 8 and front["evaluations"][0]["loss"] == front["full"]
    assert front["full"] == pytest.approx(bpb(trained, texts), rel=1e-6)
    out = run("search", tmp_path, trained, texts, search="nsga2", evaluations=6, bins=[(0.5, 0.9)])
    best = read(out, "search")["chosen"]
    assert sum(t.numel() for t in tensors(out).values()) == best["parameters"]
    assert bpb(out, texts) == pytest.approx(best["loss"], rel=1e-5), "the cut computes what the mask did"
    assert resolve(out).config["intermediate_size"] == best["sizes"]["units"]
    heads = {one["sizes"]["heads"] for one in read(out, "search")["evaluations"]}
    assert 3 not in heads, "transformers has no Llama of 3 heads and a hidden size of 32"


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_masked_layers_become_zeros(family: str, texts: Path, tmp_path: Path) -> None:
    source = stored(tmp_path / "source", family)
    settings = {"masks": MASKS | {"granularity": "medium"}, "search": "random", "bins": [(0.3, 0.95)]}
    with pytest.raises(
        UserError, match=r"a medium space differ, which no configuration says.*export: per-layer or masked"
    ):
        run("search", tmp_path, source, texts, evaluations=3, **settings)
    out = run("search", tmp_path, source, texts, evaluations=3, export="masked", **settings)
    report = read(out, "search")
    assert bpb(out, texts) == pytest.approx(report["chosen"]["loss"], rel=1e-5)
    before, after = tensors(source), tensors(out)
    assert {n: t.shape for n, t in after.items()} == {n: t.shape for n, t in before.items()}
    changed = [n for n, t in after.items() if not torch.equal(t, before[n])]
    assert changed and all((after[n] == 0).any() for n in changed)
    record = json.loads((out / "warmstart.json").read_text())["lineage"]["measured"]
    assert "the size is virtual" in record["function"]


def test_a_ranking_puts_the_largest_weights_first(texts: Path, tmp_path: Path) -> None:
    source = stored(tmp_path / "source", "bert")
    found = {}
    for order in ("first", "magnitude", {"name": "magnitude", "reverse": True}):
        masks = MASKS | {"layers": [2], "heads": [4], "units": [8], "importance": order}
        numbers = run("pareto", tmp_path, source, texts, masks=masks, search="random", evaluations=1)
        found[str(order)] = read(numbers, "pareto")["evaluations"][0]["loss"]
    assert len(set(found.values())) == 3
    masks = {"heads": [4], "units": [8], "layers": [2], "importance": "magnitude"}
    settings = {"masks": masks, "search": "random", "evaluations": 1, "bins": [(0.1, 1)]}
    out = run("search", tmp_path, source, texts, export="masked", **settings)
    name = "bert.encoder.layer.1.{}.dense.{}"
    held = {n: t.double().square() for n, t in tensors(source).items()}
    total = held[name.format("intermediate", "weight")].sum(1) + held[name.format("intermediate", "bias")]
    total = total + held[name.format("output", "weight")].sum(0)
    left = tensors(out)[name.format("intermediate", "weight")].abs().sum(1).nonzero()[:, 0]
    assert set(left.tolist()) == set(total.argsort(descending=True)[:8].tolist())


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("train-supernet", {"objective": "causal"}, "Causal knows no sub-networks; use objective: supernet"),
        ("train-supernet", {"masks": {"importance": "magnitude"}}, "heads and units as they stand"),
        ("train", {"objective": "supernet", "masks": None}, r"no sub-networks to train.*train-supernet"),
        ("pareto", {"space": {"intermediate_size": [8]}}, "either by `space` or by `masks`"),
        ("pareto", {"masks": None}, "either by `space` or by `masks`"),
        ("pareto", {"masks": {"unit": [8]}}, "unknown key 'masks.unit'"),
    ],
)
def test_what_cannot_be_is_said(
    kind: str, settings: dict[str, Any], words: str, texts: Path, tmp_path: Path
) -> None:
    source = stored(tmp_path / "source", "llama")
    plain = {"source": str(source), "corpus": str(texts), "masks": MASKS, **settings}
    plain |= TRAIN if kind.startswith("train") else MEASURE
    if kind == "train":
        plain.pop("masks")
    with pytest.raises(UserError, match=words):
        Runner(tmp_path / "cache").step(kind, plain)
