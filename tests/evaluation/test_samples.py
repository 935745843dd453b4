"""Sample texts: deterministic, and filled where words were hidden."""

from __future__ import annotations

import re

import pytest
import torch
from tiny_language_models import TEXT, model_for, tokenizer_for

from warmstart.evaluation import generate_sample
from warmstart.evaluation.machine import machine, matmul_gflops
from warmstart.evaluation.words import word_spans


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "bert", "roberta", "t5"])
def test_samples_are_deterministic(family: str) -> None:
    tokenizer = tokenizer_for(family)
    model = model_for(family, len(tokenizer)).float().train()
    state = torch.random.get_rng_state()
    first, second = (generate_sample(model, tokenizer, TEXT[0], max_new_tokens=12) for _ in range(2))
    assert first == second
    assert torch.equal(state, torch.random.get_rng_state())
    assert model.training
    start = "the little" if family == "bert" else "The little"
    assert first.startswith(start)


def test_causal_continues_greedily() -> None:
    tokenizer = tokenizer_for("llama")
    model = model_for("llama", len(tokenizer)).float()
    written = generate_sample(model, tokenizer, TEXT[0], max_new_tokens=3)
    ids = [tokenizer.eos_token_id, *tokenizer(TEXT[0])["input_ids"]]
    for _ in range(3):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert written == tokenizer.decode(ids, skip_special_tokens=True)
    assert isinstance(generate_sample(model, tokenizer, "", max_new_tokens=3), str)
    assert len(generate_sample(model, tokenizer, " ".join(TEXT), max_new_tokens=500)) > 0


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_masked_fills_every_fifth_word(family: str) -> None:
    tokenizer = tokenizer_for(family)
    model = model_for(family, len(tokenizer)).float()
    filled = generate_sample(model, tokenizer, TEXT[0])
    assert filled.count("[") == filled.count("]") == len(word_spans(TEXT[0])) // 5
    assert tokenizer.mask_token not in filled


def test_masked_fills_given_masks() -> None:
    tokenizer = tokenizer_for("bert")
    model = model_for("bert", len(tokenizer)).float()
    assert generate_sample(model, tokenizer, "the old [MASK] ran").count("[") == 1


def test_seq2seq_copies_what_was_not_hidden() -> None:
    tokenizer = tokenizer_for("t5")
    model = model_for("t5", len(tokenizer)).float()
    shown = re.sub(r"\[.*?\]", "", generate_sample(model, tokenizer, TEXT[0]))
    for word in ("The", "little", "river", "ran", "the", "old", "mill", "and"):
        assert word in shown


def test_machine() -> None:
    found = machine()
    assert found["cores"] >= 1 and found["memory_gb"] > 0
    assert torch.__version__.startswith(found["versions"]["torch"])  # without the build, such as +cpu
    assert isinstance(found["bf16"], bool)
    assert matmul_gflops(size=64, seconds=0.01) > 0
