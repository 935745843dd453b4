"""The measuring step `fertility` against counting by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from warmstart.recipes.arms import check_measures, read_numbers
from warmstart.recipes.runner import Runner


def test_tokens_per_word_and_bytes_per_token_of_held_out_text(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"größer {i} small words over the river" for i in range(200)), encoding="utf-8")
    corpus = {"path": str(text), "unit": "line"}
    runner = Runner(tmp_path / "cache")
    made = runner.step("tokenizer", {"corpus": corpus, "vocab_size": 300})
    found = read_numbers(
        runner.step("fertility", {"source": str(made), "corpus": corpus, "eval_split": "all"})
    )
    tokenizer = AutoTokenizer.from_pretrained(made)
    lines = text.read_text(encoding="utf-8").split("\n")
    tokens = sum(len(tokenizer(line, add_special_tokens=False)["input_ids"]) for line in lines)
    assert found["tokens"] == tokens
    assert found["fertility"] == pytest.approx(tokens / (7 * len(lines)))
    assert found["bytes_per_token"] == pytest.approx(sum(len(line.encode()) for line in lines) / tokens)
    less = runner.step("fertility", {"source": str(made), "corpus": corpus})
    assert json.loads((less / "fertility.json").read_text())["texts"] < 30, "the test split by default"
    check_measures({"text": {"type": "fertility", "corpus": corpus}})
