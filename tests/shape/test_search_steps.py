"""The steps that search: what they leave, what they measured, and how they go on after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_runner import call
from shape_files import stored, tensors
from tiny_language_models import TEXT

from warmstart.checkpoint import resolve
from warmstart.evaluation import bits_per_byte
from warmstart.foundation.errors import UserError
from warmstart.recipes.runner import Runner
from warmstart.recipes.training_step import held_out_sample
from warmstart.shape.search.bins import Bin
from warmstart.shape.search.subnetworks import KnownScores, SubNetworks

SPACE: dict[str, Any] = {
    "hidden_size": [16, 32],
    "intermediate_size": {"min": 8, "step": 8},
    "num_hidden_layers": [1, 2],
}
CUT = {"depth": "cosine", "calibration_tokens": 200, "block_size": 32, "eval_max_bytes": 1500}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(60):
        line = f"{TEXT[number % len(TEXT)]} {number} {TEXT[(number * 3 + 1) % len(TEXT)]}"
        (folder / f"{number:02}.txt").write_text(line)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored(tmp_path_factory.mktemp("source") / "model", "gpt_neox")


def step(cache: Path, source: Path, texts: Path, kind: str = "search", **settings: Any) -> Path:
    plain = {"source": str(source), "corpus": str(texts), "space": SPACE, **CUT, **settings}
    return Runner(cache).step(kind, plain)


def read(output: Path, name: str = "search") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / f"{name}.json").read_text())
    return found


def plain(report: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(one["sizes"], one["parameters"], one["loss"], one["tokens"]) for one in report["evaluations"]]


def test_the_best_of_the_bin_is_cut_out_as_it_was_measured(
    source: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    whole = KnownScores._scored
    monkeypatch.setattr(KnownScores, "_scored", lambda self, x: scored.append(x) or whole(self, x))
    out = step(tmp_path, source, texts, bins=[(0.3, 0.7)], evaluations=8)
    assert sorted(scored) == sorted(set(scored)), "scores are made once for the whole search"
    report = read(out)
    total = sum(t.numel() for t in tensors(source).values())
    assert report["parameters of the source"] == total and len(report["evaluations"]) == 8
    assert all(one["parameters"] in Bin(0.3 * total, 0.7 * total) for one in report["evaluations"])
    best = min(report["evaluations"], key=lambda one: one["loss"])
    assert report["chosen"] == best == report["bins"][0]["best"]
    assert sum(t.numel() for t in tensors(out).values()) == best["parameters"]
    made = resolve(out)
    assert {key: made.config[key] for key in best["sizes"]} == best["sizes"]

    from warmstart.corpus import CorpusSettings, open_corpus

    documents = open_corpus(CorpusSettings(path=str(texts))).documents("valid")
    held_out = held_out_sample(documents, 1500)
    again = bits_per_byte(
        made.load_model(), made.load_tokenizer(), held_out, task="causal", context_length=32
    )
    assert again.bpb == pytest.approx(best["loss"], rel=1e-6)
    plainly = {"source": str(source), "corpus": str(texts), "to": best["sizes"], **CUT}
    plainly.pop("eval_max_bytes")
    cut = tensors(Runner(tmp_path).step("shrink", plainly))
    assert cut.keys() == tensors(out).keys()
    assert all(torch.equal(t, cut[name]) for name, t in tensors(out).items())

    lineage = json.loads((out / "warmstart.json").read_text())["lineage"]
    assert lineage["operation"] == "search"
    assert lineage["measured"]["bits per byte"] == best["loss"]
    assert lineage["measured"]["search evaluation tokens"] == sum(
        one["tokens"] for one in report["evaluations"]
    )
    assert report["cost"]["calibration tokens"] >= 200


@pytest.mark.parametrize("way", ["evolution", "nsga2", "stratified"])
def test_an_interrupted_search_ends_as_if_it_had_not_been(
    way: str, source: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "bins": [(0.2, 0.6), (0.6, 1.0)],
        "evaluations": 6,
        "search": way,
        "importance": "random",
        "keep_bins": True,
        "chosen": 2,
    }
    if way != "stratified":
        settings["search"] = {"name": way, "population_size": 3}
    smooth = step(tmp_path / "smooth", source, texts, **settings)
    measured: list[Any] = []
    whole = SubNetworks.measure

    def measure(self: SubNetworks, sizes: Any) -> Any:
        if len(measured) == 7:
            raise KeyboardInterrupt
        measured.append(sizes)
        return whole(self, sizes)

    with monkeypatch.context() as patch:
        patch.setattr(SubNetworks, "measure", measure)
        with pytest.raises(KeyboardInterrupt):
            step(tmp_path / "rough", source, texts, **settings)
    later: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(SubNetworks, "measure", lambda self, x: later.append(x) or whole(self, x))
        rough = step(tmp_path / "rough", source, texts, **settings)
    assert later and not set(later) & set(measured), "nothing is measured twice"
    assert plain(read(rough)) == plain(read(smooth))
    assert len(plain(read(smooth))) == len(measured) + len(later)
    for part in ("", "bin-1"):
        one, other = tensors(smooth / part), tensors(rough / part)
        assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
    sizes = [sum(t.numel() for t in tensors(smooth / part).values()) for part in ("", "bin-1")]
    assert sizes == [read(smooth)["bins"][i]["best"]["parameters"] for i in (1, 0)]


def test_the_front_as_a_measure(source: Path, texts: Path, tmp_path: Path) -> None:
    numbers = read(step(tmp_path, source, texts, "pareto", search="local", evaluations=10), "pareto")
    assert numbers["measured"] == 10 and 0 <= numbers["hypervolume"] < 1
    front = numbers["front"]
    assert [one["parameters"] for one in front] == sorted(one["parameters"] for one in front)
    losses = [one["loss"] for one in front]
    assert losses == sorted(losses, reverse=True)
    full = next(one for one in numbers["evaluations"] if one["sizes"]["hidden_size"] == 32
                and one["parameters"] == numbers["parameters of the source"])  # fmt: skip
    tested = {json.dumps(one["sizes"]): one for one in numbers["tested"]}
    assert tested.keys() == {json.dumps(one["sizes"]) for one in front}
    assert all(tested[json.dumps(one["sizes"])]["loss"] != one["loss"] for one in front), "another text"
    same = step(tmp_path, source, texts, "pareto", search="local", evaluations=10, test_split="valid")
    again = read(same, "pareto")
    assert again["hypervolume"] == pytest.approx(numbers["searched_hypervolume"], abs=1e-12)
    assert again["full"] == full["loss"], "the whole model is one of its sub-networks"
    small = [one["loss"] for one in numbers["evaluations"]
             if one["parameters"] <= numbers["parameters of the source"] / 2]  # fmt: skip
    assert again["half"] == min(small)


@pytest.mark.parametrize("family", ["llama", "bert", "t5", "gpt2"])
def test_every_family_can_be_searched(family: str, texts: Path, tmp_path: Path) -> None:
    model = stored(tmp_path / "source", family)
    keys = {"gpt2": "n_layer", "t5": "d_ff"}
    space = {keys.get(family, "intermediate_size"): {"min": 1, "step": 1}}
    out = step(tmp_path, model, texts, space=space, bins=[(0.1, 1)], evaluations=2, depth="middle")
    assert resolve(out).load_model() is not None
    assert all(0 < one["loss"] < 60 for one in read(out)["evaluations"])


def test_the_command(source: Path, texts: Path, tmp_path: Path) -> None:
    words = ["search", str(source), "--space", "{intermediate_size: [8, 16, 24]}", "--bins", "[[0.1, 0.9]]"]
    words += ["--corpus", str(texts), "--block-size", "32", "--evaluations", "2"]
    done = call(*words, "-o", str(tmp_path / "smaller"))
    assert done.code == 0, done.err
    assert "bits per byte" in done.out
    assert resolve(tmp_path / "smaller").config["intermediate_size"] in (8, 16, 24)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bins": []}, "bins"),
        ({"bins": [(0.2, 0.6)], "chosen": 2}, "there is no bin 2"),
        ({"bins": [(1, 2)]}, "no sub-network of the space has 1 to 2 parameters.*the space has 6,280 to"),
        ({"bins": [(0.2, 0.6)], "search": "evolutoin"}, "evolution"),
        ({"bins": [(0.2, 0.6)], "search": {"name": "random", "strata": 2}}, "unknown key 'strata'"),
        ({"bins": [(0.2, 0.6)], "depth": "stack"}, "makes a model deeper"),
    ],
)
def test_what_cannot_be_searched_is_said(
    settings: dict[str, Any], words: str, source: Path, texts: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        step(tmp_path, source, texts, **settings)
