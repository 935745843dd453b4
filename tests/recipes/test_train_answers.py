"""Answers of texts, from their marking to a model that has learned them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "vocabulary"))
from vocab_families import FAMILIES
from vocab_tokenizers import plain

from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.corpus import Document
from warmstart.corpus.answers import answer_texts
from warmstart.foundation.errors import UserError
from warmstart.objectives import objectives
from warmstart.recipes.runner import Runner

pytestmark = pytest.mark.usefixtures("one_thread")


def test_only_the_last_answer_and_the_end_are_asked_for() -> None:
    tokenizer = plain("bpe", 420, 0)
    texts = ["Q: one\nA: uno\nQ: two\nA: dos tres", "no answer", "Q: x\nA:", "Q: " + "y" * 400 + "\nA: z"]
    found = answer_texts((Document(t, str(i)) for i, t in enumerate(texts)), tokenizer, length=64)
    assert len(found) == 2 and found.dropped == 2 and found.num_bytes == len(" dos tres")
    for row, answer in zip(found.rows, (" dos tres", ""), strict=True):
        ids, asked = row
        assert ids[0] == tokenizer.eos_token_id == ids[ids >= 0][-1]
        places = np.flatnonzero(asked >= 0)
        assert places.tolist() == list(range(places[0], int((ids >= 0).sum()))), "the end of the text"
        assert (asked[places] == ids[places]).all()
        assert tokenizer.decode(ids[places][:-1]) == answer
    with pytest.raises(UserError, match="none of 1 texts has an answer behind"):
        answer_texts([Document("nothing", "0")], tokenizer, length=64)


def test_a_causal_objective_asks_for_the_second_row() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=11, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config).double()
    blocks = np.array(
        [[[3, 5, 7, 2, 9, -1], [-1, -1, -1, 2, 9, -1]], [[1, 4, 6, -1, -1, -1], [-1, 4, 6, -1, -1, -1]]]
    )
    causal: Any = objectives.get("causal")
    objective = causal.target(causal.settings(), None)
    total, count = objective.loss(model, objective.collate(blocks, np.random.default_rng(0)))
    logs = [model(torch.from_numpy(row[0][row[0] >= 0])[None]).logits[0].log_softmax(-1) for row in blocks]
    expected = -(logs[0][2, 2] + logs[0][3, 9] + logs[1][0, 4] + logs[1][1, 6])
    assert count.item() == 4
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_answers_are_learned_and_measured(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    tokenizer = plain("bpe", 420, 0)
    kind, _, _, sizes = FAMILIES["qwen3"]
    ids = {"bos_token_id": None, "pad_token_id": tokenizer.pad_token_id}
    sizes = {**sizes, "max_position_embeddings": 160, "initializer_range": 0.2}
    config = AutoConfig.for_model(kind, **sizes, vocab_size=len(tokenizer), tie_word_embeddings=True, **ids)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    save_checkpoint(tmp_path / "source", model, tokenizer, lineage=Lineage.of("test"))
    problems = {"path": "arithmetic", "options": {"documents": 600, "steps": 1, "largest": 1, "exemplars": 1}}
    given = {
        "source": str(tmp_path / "source"),
        "corpus": problems,
        "block_size": 160,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "max_steps": 15,
        "eval_points": [],
        "eval_max_bytes": 2048,
        "only": {"format": ["answer", "chain"]},
    }
    runner = Runner(tmp_path / "cache")
    done = runner.step("train-answers", given)
    curve = [point["bpb"] for point in json.loads((done / "training.json").read_text())["points"]]
    assert curve[-1] < curve[0] / 2
    lineage = resolve(str(done)).lineage
    assert lineage is not None and 200 < lineage.measured["texts"] <= 300, "half of the formats"
    found = runner.step("answers", {"source": str(done), "corpus": problems, "eval_max_bytes": 2048})
    scores = json.loads((found / "answers.json").read_text())
    assert 0 < scores["bits_per_byte"] < curve[0] / 2 and 0 <= scores["accuracy"] <= 1
    taught = {"name": "distillation", "teacher": str(done), "alpha": 0, "beta": 1, "top_k": 5}
    student = runner.step("train-answers", {**given, "objective": taught})
    learned = [point["bpb"] for point in json.loads((student / "training.json").read_text())["points"]]
    assert learned[-1] < learned[0] / 2
