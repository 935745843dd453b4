"""Lineage records and model cards: nested parents, data, numbers; only hub ids become base models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from tiny_checkpoints import bpe, tiny_model, tokenizer_for

from warmstart.checkpoint import Lineage, Parent, inspect, resolve, save_checkpoint
from warmstart.checkpoint.card import front_matter, render_card
from warmstart.checkpoint.lineage import tree_lines
from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings

HUB = Parent(name="owner/base", fingerprint="ab" * 16, hub_id="owner/base", license="mit")


class Options(Settings):
    rate: float = 0.5
    corpus: Path = Path("data/x.txt")


def test_a_record_survives_saving_and_carries_its_ancestors(make, tmp_path):
    grand = resolve(make(name="grand"))
    middle = save_checkpoint(
        tmp_path / "middle",
        tiny_model("llama"),
        bpe(),
        lineage=Lineage.of("transplant", Options(), parents=[grand]),
    )
    last = save_checkpoint(
        tmp_path / "last",
        tiny_model("llama"),
        bpe(),
        lineage=Lineage.of(
            "train",
            {"rate": np.float32(0.5), "out": Path("x")},
            parents=[middle, ("teacher", grand)],
            data={"captions": "1234"},
            seeds={"order": 7},
            measured={"bpb": np.float64(1.25)},
        ),
    )
    for folder in ("grand", "middle"):
        (tmp_path / folder).rename(tmp_path / f"gone-{folder}")  # the record needs no ancestor on disk
    lineage = resolve(last.path).lineage
    assert lineage == last.lineage
    assert lineage.measured == {"bpb": 1.25} and lineage.settings == {"rate": 0.5, "out": "x"}
    assert lineage.versions["transformers"] and lineage.created.endswith("+00:00")
    assert [(p.name, p.role) for p in lineage.ancestors()] == [
        ("middle", "source"),
        ("grand", "source"),
        ("grand", "teacher"),
    ]
    assert lineage.parents[0].fingerprint == middle.fingerprint
    assert lineage.parents[0].lineage.settings == {"rate": 0.5, "corpus": "data/x.txt"}
    lines = tree_lines(lineage.tree("last"))
    assert lines[0] == "last: train on captions"
    assert lines[1].startswith("├── middle (source, ") and lines[2].startswith("│   └── grand (source, ")
    assert lines[3].startswith("└── grand (teacher, ")
    assert str(tmp_path) not in (last.path / "README.md").read_text()
    assert inspect(last)["tree"]["children"][0]["children"][0]["label"].startswith("grand")


def test_an_unknown_checkpoint_has_no_lineage(make):
    folder = make()
    (folder / "warmstart.json").unlink()
    assert resolve(folder).lineage is None


def card_of(folder: Path) -> ModelCard:
    return ModelCard.load(folder / "README.md")


def test_the_card_is_what_the_hub_reads(tmp_path):
    lineage = Lineage.of(
        "train",
        {"learning_rate": 0.001},
        parents=[HUB],
        data={"multi30k/de": "f" * 32},
        measured={"bpb": 1.5, "steps": {"tokens": 1000}, "reached": True, "nan": float("nan")},
    )
    details = {
        "language": "de",
        "datasets": ["owner/data"],
        "tags": ["captions"],
        "metrics": {"accuracy": 0.25},
    }
    save_checkpoint(tmp_path / "de-model", tiny_model("gpt2"), bpe(), lineage=lineage, card=details)
    card = card_of(tmp_path / "de-model")
    data = card.data.to_dict()
    assert data["base_model"] == "owner/base" and data["base_model_relation"] == "finetune"
    assert data["library_name"] == "transformers" and data["pipeline_tag"] == "text-generation"
    assert data["license"] == "mit" and data["language"] == ["de"] and data["datasets"] == ["owner/data"]
    assert {"warmstart", "gpt2", "train", "captions"} <= set(data["tags"])
    results = {r.metric_type: r.metric_value for r in card.data.eval_results}
    assert results == {"bpb": 1.5, "steps tokens": 1000, "accuracy": 0.25}
    assert {r.dataset_name for r in card.data.eval_results} == {"multi30k/de"}
    body = card.text
    for shown in (
        "learning_rate: 0.001",
        "owner/base",
        "multi30k/de",
        "1.5",
        "AutoModelForCausalLM",
        "bits per UTF-8",
    ):
        assert shown in body
    assert resolve(tmp_path / "de-model").license == "mit"


def test_local_parents_are_no_base_model(make, tmp_path):
    lineage = Lineage.of("train", parents=[resolve(make())])
    save_checkpoint(tmp_path / "o", tiny_model("llama"), bpe(), lineage=lineage)
    data = front_matter(tmp_path / "o" / "README.md")
    assert "base_model" not in data and "base_model_relation" not in data and "license" not in data
    assert "model (source, " in (tmp_path / "o" / "README.md").read_text()


def test_the_base_model_is_the_nearest_hub_source_of_each_branch():
    inner = Lineage.of(
        "transplant", parents=[HUB, HUB.model_copy(update={"hub_id": "owner/tok", "role": "tokenizer"})]
    )
    local = Parent(name="step", fingerprint="0" * 32, lineage=inner)
    other = HUB.model_copy(update={"hub_id": "owner/second", "license": "apache-2.0"})
    text = render_card("x", "masked", "bert", 10, Lineage.of("merge", parents=[local, other]), {})
    head = text.split("---\n")[1]
    assert "- owner/base" in head and "- owner/second" in head and "owner/tok" not in head
    assert "base_model_relation: merge" in head and "license" not in head and "fill-mask" in head


def test_unknown_card_keys_are_named(tmp_path):
    with pytest.raises(UserError, match="did you mean 'language'"):
        save_checkpoint(
            tmp_path / "o", tiny_model("gpt2"), bpe(), lineage=Lineage.of("train"), card={"languages": "de"}
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["", "no front matter", "---\nlicense: [\n---\n", "---\n- list\n---\n", "---\nopen"]
)
def test_other_peoples_cards_never_break(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert front_matter(tmp_path / "README.md") == {}


@pytest.mark.parametrize("family, pipeline", [("bert", "fill-mask"), ("t5", "text2text-generation")])
def test_cards_of_other_tasks(make, family, pipeline):
    assert card_of(make(family)).data.to_dict()["pipeline_tag"] == pipeline


def test_the_card_says_how_to_load_and_that_works(make):
    text = (make("t5") / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0]
    folder = Path(resolve(make("t5", name="again")).path)
    space: dict[str, object] = {}
    exec(code.replace("path/to/model", str(folder)), space)
    assert space["model"].config.model_type == "t5"
    assert space["tokenizer"]("the")["input_ids"] == tokenizer_for("t5")("the")["input_ids"]


def test_records_are_plain_json(make):
    record = json.loads((make() / "warmstart.json").read_text())
    assert record["format"] == 1 and record["lineage"]["operation"] == "train"
