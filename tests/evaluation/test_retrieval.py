"""Retrieval against a brute-force twin, and vectors that do not depend on their batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast

from warmstart.evaluation.retrieval import pooled, ranks, retrieval, sentence_vectors
from warmstart.foundation.errors import UserError

WORDS = ["a", "small", "dog", "runs", "over", "the", "big", "green", "field", "and", "barks"]


def slow_rank(query: np.ndarray, candidates: np.ndarray, own: int) -> int:
    def cosine(other: np.ndarray) -> float:
        dot = sum(float(x) * float(y) for x, y in zip(query, other, strict=True))
        return dot / math.sqrt(sum(float(x) ** 2 for x in query) * sum(float(y) ** 2 for y in other))

    goal = cosine(candidates[own])
    return 1 + sum(cosine(c) >= goal - 1e-6 for i, c in enumerate(candidates) if i != own)


@pytest.mark.parametrize("block", [1, 7, 1024])
def test_ranks_are_those_of_the_plain_definition(block: int) -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal((40, 5))
    second = first + 1.2 * rng.standard_normal((40, 5))
    second[7] = 3 * second[8]  # a tie by cosine
    expected = [slow_rank(first[i], second, i) for i in range(40)]
    assert ranks(first, second, block=block).tolist() == expected
    assert 1 in expected and max(expected) > 5
    found = retrieval(first, second)
    assert found.accuracy == sum(r == 1 for r in expected) / 40
    assert found.mrr == pytest.approx(sum(1 / r for r in expected) / 40)
    turned = retrieval(second, first)
    assert (turned.accuracy, turned.mrr) == (found.accuracy_back, found.mrr_back)
    assert found.accuracy_back == sum(slow_rank(second[i], first, i) == 1 for i in range(40)) / 40


def test_a_model_that_says_the_same_of_everything_finds_nothing() -> None:
    found = retrieval(np.ones((10, 3)), np.ones((10, 3)))
    assert found.accuracy == found.accuracy_back == 0 and found.mrr == pytest.approx(0.1)
    assert retrieval(np.eye(4), 5 * np.eye(4)).accuracy == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.ones((3, 2)), np.ones((4, 2))),
        (np.ones((3, 2)), np.ones((3, 4))),
        (np.ones((0, 2)), np.ones((0, 2))),
        (np.full((3, 2), np.nan), np.ones((3, 2))),
    ],
)
def test_bad_vectors_are_refused(first: np.ndarray, second: np.ndarray) -> None:
    with pytest.raises(UserError):
        retrieval(first, second)


@pytest.fixture(scope="module")
def encoder() -> tuple[BertModel, PreTrainedTokenizerFast]:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
    )
    return BertModel(config), tokenizer


def test_vectors_are_means_over_the_own_tokens_whatever_the_batch(
    encoder: tuple[BertModel, PreTrainedTokenizerFast],
) -> None:
    model, tokenizer = encoder
    rng = np.random.default_rng(1)
    texts = [" ".join(rng.choice(WORDS, size=n)) for n in (1, 9, 4, 2, 7, 3, 30)]
    found = sentence_vectors(model, tokenizer, texts, batch_tokens=20)
    model.eval()
    for text, vector in zip(texts, found, strict=True):
        ids = tokenizer(text, truncation=True, max_length=12)["input_ids"]
        assert len(ids) <= 12, "cut to the positions of the model"
        with torch.no_grad():
            alone = model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0).numpy()
        np.testing.assert_allclose(vector, alone, atol=1e-5)
    np.testing.assert_allclose(sentence_vectors(model, tokenizer, texts, batch_tokens=9999), found, atol=1e-5)
    with pytest.raises(UserError, match="no sentence"):
        sentence_vectors(model, tokenizer, [])


def test_a_head_on_top_changes_nothing_and_the_mean_has_a_gradient(
    encoder: tuple[BertModel, PreTrainedTokenizerFast],
) -> None:
    model, tokenizer = encoder
    headed = BertForMaskedLM(model.config)
    headed.bert.load_state_dict({k: v for k, v in model.state_dict().items() if "pooler" not in k})
    a, b = (sentence_vectors(m, tokenizer, ["a small dog"]) for m in (model, headed))
    np.testing.assert_allclose(a, b, atol=1e-6)
    inputs = {"input_ids": torch.tensor([[2, 4, 3, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 0]])}
    (pooled(model, inputs) * torch.arange(16)).sum().backward()
    gradient = model.embeddings.word_embeddings.weight.grad
    assert gradient is not None and gradient[4].abs().sum() > 0 and not gradient[5].any()
    model.zero_grad()
