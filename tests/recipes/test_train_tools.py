"""Tools from names to a measured model: only their rows learn, and their calls are counted."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "vocabulary"))
from vocab_families import FAMILIES, random_model
from vocab_tokenizers import plain, sentences

from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.foundation.errors import UserError
from warmstart.recipes.operations.train_tools import TrainToolsSettings
from warmstart.recipes.runner import Runner
from warmstart.vocabulary.tools import read_tools

SEEN = Counter(word for text in sentences() for word in text.split()[1:] if word.isalpha() and len(word) > 3)
WORDS = [word for word, _ in SEEN.most_common(6)]


pytestmark = pytest.mark.usefixtures("one_thread")


def world(folder: Path, *, tied: bool = True) -> dict[str, Any]:
    """A random decoder with tools named `t0` … for six words, and texts with their calls as records."""
    from transformers import AutoConfig

    tokenizer = plain("bpe", 420, 0)
    kind, task, _, sizes = FAMILIES["qwen3"]
    ids = {"bos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(kind, **sizes, vocab_size=len(tokenizer), tie_word_embeddings=tied, **ids)
    save_checkpoint(
        folder / "source", random_model(config, task, torch.float32), tokenizer, lineage=Lineage.of("test")
    )
    (folder / "text").mkdir()
    for split, part in (("train", slice(0, 260)), ("valid", slice(260, 320)), ("test", slice(320, 400))):
        lines = []
        for text in sentences()[part]:
            calls = [
                [text.index(w), text.index(w) + len(w), f"t{i}"]
                for i, w in enumerate(WORDS)
                if f" {w} " in text
            ]
            if calls and (split == "test" or not any(tool == "t5" for _, _, tool in calls)):
                lines.append(json.dumps({"text": text, "calls": calls}))
        (folder / "text" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return {
        "corpus": {"path": str(folder / "text")},
        "learning_rate": 3e-2,
        "block_size": 48,
        "max_steps": 20,
        "eval_points": [],
    }


def head(path: Path) -> np.ndarray:
    return resolve(str(path)).load_model().get_output_embeddings().weight.detach().numpy()


@pytest.mark.parametrize("tied", [True, False])
def test_only_rows_of_called_tools_learn_and_calls_are_measured(tmp_path: Path, tied: bool) -> None:
    given, runner = world(tmp_path, tied=tied), Runner(tmp_path / "cache")
    start = runner.step("add-tools", {"source": str(tmp_path / "source"), "corpus": given["corpus"]})
    tools = read_tools(start)
    assert sorted(tools) == [f"t{i}" for i in range(6)], "also the tool that only the test part calls"
    done = runner.step(
        "train-tools", {**given, "source": str(start), "objective": {"name": "tool-rows", "penalty": 0}}
    )
    assert read_tools(done) == tools
    before, after = head(start), head(done)
    changed = set(np.flatnonzero((before != after).any(1)).tolist())
    assert changed == {index for name, index in tools.items() if name != "t5"}
    models = [dict(resolve(str(p)).load_model().named_parameters()) for p in (start, done)]
    moved = {n for n, p in models[0].items() if not torch.equal(p, models[1][n])}
    assert moved == {"model.embed_tokens.weight" if tied else "lm_head.weight"}
    points = json.loads((done / "training.json").read_text())["points"]
    assert points[-1]["bpb"] < points[0]["bpb"] - 1
    measured = json.loads((done / "warmstart.json").read_text())["lineage"]["measured"]
    assert measured["tools"] == 6 and measured["tools trained"] == 5
    found = {}
    for name, path in (("start", start), ("done", done)):
        step = runner.step("tool-calls", {"source": str(path), "corpus": given["corpus"]})
        found[name] = json.loads((step / "tool-calls.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "text" / "test.jsonl").read_text().splitlines()]
    due = Counter(tool == "t5" for line in lines for _, _, tool in line["calls"])
    for scores in found.values():
        assert (scores["calls"], scores["zero_shot_calls"]) == (due[False], due[True])
        assert scores["zero_shot_accuracy"] == 1.0 == scores["zero_shot_chance"], (
            "one tool alone is never wrong"
        )
        assert scores["trained_tools"] == 5
    assert found["done"]["accuracy"] > 0.2 > found["start"]["plain_f1"], "better than one of five by chance"


def test_examples_are_drawn_by_the_seed_and_counted(tmp_path: Path) -> None:
    given, runner = world(tmp_path), Runner(tmp_path / "cache")
    start = runner.step(
        "add-tools", {"source": str(tmp_path / "source"), "corpus": given["corpus"], "rows": "random"}
    )
    heads = []
    for seed, penalty in ((0, 0.0), (1, 0.0), (0, 100.0)):
        objective = {"name": "tool-rows", "penalty": penalty}
        values = {**given, "source": str(start), "examples": 2, "seed": seed, "objective": objective}
        done = runner.step("train-tools", values)
        measured = json.loads((done / "warmstart.json").read_text())["lineage"]["measured"]
        assert measured["calls learned from"] == 10
        heads.append(head(done))
    assert not np.array_equal(heads[0], heads[1])
    far, near = (np.linalg.norm(h - head(start)) for h in (heads[0], heads[2]))
    assert near < 0.5 * far, "the penalty holds rows at where they began"


def test_settings_say_what_cannot_be_trained(tmp_path: Path) -> None:
    settings = TrainToolsSettings.parse({"source": "a", "corpus": "c", "trainable": "all"})
    assert settings.loop().num_train_epochs == 10 and settings.loop().trainable == "embeddings"
    with pytest.raises(UserError, match="not 'causal'"):
        TrainToolsSettings.parse({"source": "a", "corpus": "c", "objective": "causal"}).loop()
    given, runner = world(tmp_path), Runner(tmp_path / "cache")
    with pytest.raises(UserError, match=r"no tools.*add-tools"):
        runner.step("train-tools", {**given, "source": str(tmp_path / "source")})
    start = runner.step("add-tools", {"source": str(tmp_path / "source"), "tools": ["t0", "t1"]})
    with pytest.raises(UserError, match=r"has no tool 't\d' \(in train\.jsonl:\d+\)"):
        runner.step("train-tools", {**given, "source": str(start)})
