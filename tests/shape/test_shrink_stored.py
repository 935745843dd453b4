"""Stored checkpoints are shrunk as models in memory are; the rest of each file is as it was."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runner import call
from shape_files import stored, tensors
from tiny_language_models import TEXT

from warmstart.checkpoint import resolve
from warmstart.corpus import CorpusSettings, open_corpus
from warmstart.foundation.errors import UserError
from warmstart.recipes.runner import Runner
from warmstart.shape.calibration import calibrate
from warmstart.shape.shrink import ShrinkSettings, shrink
from warmstart.shape.stored import Stored

TO = {
    "llama": {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 20},
    "gpt2": {"n_embd": 16, "n_layer": 1},
    "gpt_neox": {"intermediate_size": 20, "num_hidden_layers": 1},
    "bert": {"intermediate_size": 20, "hidden_size": 16},
    "t5": {"d_model": 16, "num_layers": 1, "d_ff": 20},
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(60):
        line = f"{TEXT[number % len(TEXT)]} {number} {TEXT[(number * 3 + 1) % len(TEXT)]}"
        (folder / f"{number:02}.txt").write_text(line)
    return folder


def step(folder: Path, source: Path, **settings: Any) -> Path:
    return Runner(folder / "cache").step("shrink", {"source": str(source), **settings})


@pytest.mark.parametrize("family", TO)
def test_a_step_writes_what_the_surgery_makes(family: str, texts: Path, tmp_path: Path) -> None:
    source = stored(tmp_path / "source", family)
    settings = {"to": TO[family], "depth": "cosine", "rescale": "calibrated", "refit": "cut", "seed": 4}
    reading = {"calibration_tokens": 200, "block_size": 32}
    corpus = CorpusSettings(path=str(texts))
    out = step(tmp_path, source, **settings, **reading, corpus=str(texts))
    here = resolve(source)
    before = Stored(here)
    surgery = shrink(
        before.anatomy,
        ShrinkSettings.parse(settings),
        read=before.read,
        names=before.names,
        calibrate=lambda method: calibrate(here, open_corpus(corpus), tokens=200, block_size=32, seed=4),
    )
    expected = dict(surgery.state(tensors(source)))
    found = Stored(resolve(out))
    assert found.anatomy.sizes == surgery.new.sizes and found.anatomy.layers == surgery.new.layers
    assert found.names.keys() == expected.keys()
    assert all(torch.equal(found.read(name), t) for name, t in expected.items())
    assert surgery.made.keys() <= expected.keys() and surgery.made
    record = json.loads((out / "warmstart.json").read_text())["lineage"]
    assert record["measured"]["parameters"] == sum(t.numel() for t in expected.values())
    assert record["measured"]["parameters before"] == sum(t.numel() for t in tensors(source).values())
    assert record["measured"]["function"].startswith("changed: ")
    assert list(record["data"].values()) == [open_corpus(corpus).fingerprint]
    smaller = resolve(out).load_model()
    ids = torch.arange(3, 15).reshape(2, 6)
    more = {"decoder_input_ids": ids} if family == "t5" else {}
    with torch.no_grad():
        assert smaller(input_ids=ids, **more).logits.isfinite().all()


def test_tensors_that_no_axis_of_the_surgery_touches_are_bit_equal(tmp_path: Path) -> None:
    source = stored(tmp_path / "source", "llama", torch.bfloat16)
    to = {"intermediate_size": 24, "num_hidden_layers": 1}
    out = step(tmp_path, source, to=to, importance="magnitude", depth="last", max_shard_size="20KB")
    old, new = tensors(source), tensors(out)
    assert len(new) < len(old) and len(list(out.glob("*.safetensors"))) > 1
    touched = 0
    for name, tensor in new.items():
        before = old[name.replace("layers.0.", "layers.1.")]
        assert tensor.dtype == torch.bfloat16
        if "mlp" not in name:
            assert torch.equal(tensor, before), name
            continue
        touched += 1
        kept = surgery_index(source, to)
        if "down_proj" in name:
            expected = before[:, kept].float() * math.sqrt(before.shape[1] / 24)
            assert torch.equal(tensor, expected.bfloat16())
        else:
            assert torch.equal(tensor, before[kept])
    assert touched == 3
    record = json.loads((out / "warmstart.json").read_text())["lineage"]
    assert record["data"] == {}


def surgery_index(source: Path, to: dict[str, int]) -> Any:
    """The units with the largest weights, by hand."""
    state = {name: t.double() for name, t in tensors(source).items() if ".layers.1.mlp." in name}
    total = sum((t.square().sum(0 if "down_proj" in name else 1) for name, t in state.items()))
    return total.argsort(descending=True, stable=True)[: to["intermediate_size"]].sort().values


def test_reading_less_text_than_asked_for_reads_all_of_it(texts: Path, tmp_path: Path) -> None:
    source = resolve(stored(tmp_path / "source", "gpt2"))
    corpus = open_corpus(CorpusSettings(path=str(texts)))
    few = calibrate(source, corpus, tokens=70, block_size=32, batch_size=2, seed=1)
    assert [tuple(batch["input_ids"].shape) for batch in few.batches] == [(2, 32), (1, 32)]
    again = calibrate(source, corpus, tokens=70, block_size=32, batch_size=2, seed=1)
    other = calibrate(source, corpus, tokens=70, block_size=32, batch_size=2, seed=2)
    assert torch.equal(few.batches[0]["input_ids"], again.batches[0]["input_ids"])
    assert not torch.equal(few.batches[0]["input_ids"], other.batches[0]["input_ids"])
    everything = calibrate(source, corpus, tokens=10**9, block_size=4096)
    width = {batch["input_ids"].shape[1] for batch in everything.batches}
    assert width == {source.config["n_positions"]}, "the model's positions are the limit"


def test_the_command(texts: Path, tmp_path: Path) -> None:
    source = stored(tmp_path / "source", "llama")
    words = ["shrink", str(source), "--to", "{intermediate_size: 20}", "--corpus", str(texts)]
    done = call(*words, "--block-size", "32", "-o", str(tmp_path / "smaller"))
    assert done.code == 0, done.err
    assert "feed-forward units cut from" in " ".join(done.out.split())
    assert resolve(tmp_path / "smaller").config["intermediate_size"] == 20
    assert len(resolve(tmp_path / "smaller").load_tokenizer()) == len(resolve(source).load_tokenizer())


def test_what_cannot_be_shrunk_is_said(tmp_path: Path) -> None:
    source = stored(tmp_path / "source", "llama")
    free = {"importance": "first"}
    for settings, words in [
        ({"to": {"hidden_size": 64}}, "hidden size would grow from 32 to 64.*step of its own"),
        ({"to": {"num_hidden_layers": 4}}, "would grow from 2 to 4 layers"),
        ({"to": {"num_hidden_layers": 2}}, "has these sizes already"),
        (
            {"to": {"num_attention_heads": 3}},
            r"cannot have num_attention_heads = 3; possible are num_attention_heads = 2 or 4",
        ),
        ({"to": {"hidden_sise": 16}}, "hidden_size"),
        ({"to": {"vocab_size": 64}}, "belongs to the tokenizer"),
        ({"to": {"head_dim": 6}}, "a rotary head of 8 entries cannot shrink to 6.*possible are 4, 2"),
        ({"to": {"num_hidden_layers": 1}, "depth": "stack"}, "makes a model deeper.*chosen, cosine, first"),
        ({"to": {"num_hidden_layers": 1}, "depth": {"name": "chosen", "layers": [2]}}, "no layer 2.*0 to 1"),
        (
            {"to": {"num_hidden_layers": 1}, "depth": {"name": "chosen", "layers": [0, 1]}},
            "2 layers are chosen",
        ),
        (
            {"to": {"intermediate_size": 20}, "importance": "taylr"},
            "importance 'taylr'.*did you mean 'taylor'",
        ),
        (
            {"to": {"intermediate_size": 20}, "importance": {"name": "taylor", "norm": 1}},
            "unknown key 'norm'",
        ),
        (
            {"to": {"intermediate_size": 20}, "importance": "taylor"},
            "the importance 'taylor' needs text that the model reads.*add corpus: …",
        ),
    ]:
        with pytest.raises(UserError, match=words):
            step(tmp_path, source, **{**free, **settings})
    with pytest.raises(UserError, match=r"buckets.*cannot be cut"):
        other = stored(tmp_path / "t5", "t5")
        step(tmp_path, other, to={"relative_attention_num_buckets": 4}, **free)


def test_ways_that_leave_layers_out_do_not_grow(tmp_path: Path) -> None:
    source = stored(tmp_path / "source", "llama")
    for way in ("middle", "first", "last", "cosine"):
        with pytest.raises(UserError, match=f"the way {way} leaves layers out, and 2 would become 3"):
            Runner(tmp_path / "cache").step(
                "grow", {"source": str(source), "to": {"num_hidden_layers": 3}, "depth": way}
            )
