"""Bits of answers by hand, and answers as greedy decoding writes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from warmstart.evaluation.answers import answer_scores


def tiny(sharp: float) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=9,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=sharp,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def texts(count: int = 24, length: int = 12) -> tuple[np.ndarray, list[tuple[list[int], list[int]]]]:
    """Rows, and each text's question and answer."""
    rng = np.random.default_rng(0)
    rows, parts = np.full((count, 2, length), -1, dtype=np.int32), []
    for row in rows:
        asked, told = int(rng.integers(1, 8)), int(rng.integers(1, 4))
        ids = rng.integers(0, 9, asked + told).tolist()
        row[0, : asked + told], row[1, asked : asked + told] = ids, ids[asked:]
        parts.append((ids[:asked], ids[asked:]))
    return rows, parts


def test_bits_are_those_of_each_answer_alone() -> None:
    model, (rows, parts) = tiny(0.5), texts()
    nats = 0.0
    for question, answer in parts:
        logs = model(torch.tensor([question + answer])).logits[0].detach().log_softmax(-1)
        nats -= sum(float(logs[len(question) + i - 1, token]) for i, token in enumerate(answer))
    for size in (1, 5, 64):
        found = answer_scores(model, rows, 77, batch_size=size)
        assert found.bits_per_byte == pytest.approx(nats / math.log(2) / 77, rel=1e-5)
        assert found.answers == 24


def test_right_answers_are_those_that_greedy_decoding_writes() -> None:
    model, (rows, parts) = tiny(0.5), texts()
    written = []
    for question, answer in parts[:12]:
        ids = list(question)
        for _ in answer:
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        written.append(ids[len(question) :])
    for number, (question, answer) in enumerate(zip([q for q, _ in parts], written, strict=False)):
        rows[number, 0, len(question) : len(question) + len(answer)] = answer
        rows[number, 1, len(question) : len(question) + len(answer)] = answer
    found = answer_scores(model, rows[:12], 1, batch_size=5)
    assert found.accuracy == 1.0
    wrong = rows[:12].copy()
    for number in (2, 7, 8):  # one token of an answer is another one
        place = int((wrong[number, 1] >= 0).nonzero()[0][-1])
        wrong[number, :, place] = (wrong[number, 1, place] + 1) % 9
    assert answer_scores(model, wrong, 1, batch_size=5).accuracy == 9 / 12
