"""Distillation of sentence vectors: the loss by hand, and what it does not see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from warmstart.objectives._numbered import encoder_inputs, numbered_texts
from warmstart.objectives._sentences import SentenceLossSettings, Sentences, sentence_loss


def _vectors(seed: int, count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_vectors_cost_two_minus_twice_the_cosine() -> None:
    ours, theirs = _vectors(0, 5, 7), _vectors(1, 5, 7)
    cosine = torch.nn.functional.cosine_similarity(ours, theirs)
    assert float(sentence_loss(ours, theirs, "vectors")) == pytest.approx(
        float((2 - 2 * cosine).sum()), 1e-12
    )
    assert float(sentence_loss(3 * theirs, theirs, "vectors")) == pytest.approx(0, abs=1e-12)


def test_similarities_are_those_of_other_sentences() -> None:
    ours, theirs = _vectors(0, 4, 3), _vectors(1, 4, 9)
    expected = 0.0
    for i in range(4):
        for j in range(4):
            if i != j:
                first, second = (
                    float(torch.nn.functional.cosine_similarity(v[i], v[j], dim=0)) for v in (ours, theirs)
                )
                expected += (first - second) ** 2 / 3
    assert float(sentence_loss(ours, theirs, "similarities")) == pytest.approx(expected, 1e-12)
    rotation = torch.linalg.qr(_vectors(2, 9, 9)).Q
    assert float(sentence_loss(theirs @ rotation, theirs, "similarities")) == pytest.approx(0, abs=1e-12)
    assert float(sentence_loss(ours[:1], theirs[:1], "similarities")) == 0, "one sentence has no pair"


def test_each_text_meets_its_own_vector_without_its_padding(encoder: Any) -> None:
    model, tokenizer = encoder
    texts = ["the cat", "the old dog sees the house", "cat"]
    taught = np.arange(3 * model.config.hidden_size, dtype=np.float32).reshape(3, -1) + 1
    blocks = numbered_texts(texts, tokenizer, length=12)
    objective = Sentences(SentenceLossSettings(), tokenizer, taught=taught)
    rows = np.stack([blocks[i] for i in (2, 1)])
    batch = objective.collate(rows, np.random.default_rng(0))
    assert batch["taught"].tolist() == taught[[2, 1]].tolist()
    assert batch["attention_mask"].sum(1).tolist() == [(row[0] >= 0).sum() for row in rows]
    body = model.base_model.double().eval()
    together, count = objective.loss(body, batch)
    alone = [objective.loss(body, objective.collate(row[None], np.random.default_rng(0)))[0] for row in rows]
    assert count == 2 and float(together.detach()) == pytest.approx(float(sum(alone).detach()), 1e-10)  # type: ignore[union-attr]
    assert encoder_inputs(rows, tokenizer)["input_ids"].shape[1] == (rows[1, 0] >= 0).sum()


def test_another_teacher_is_another_run(encoder: Any) -> None:
    taught = np.ones((2, 4), dtype=np.float32)
    one, same, other, way = (
        Sentences(SentenceLossSettings(match=match), encoder[1], taught=vectors).fingerprint
        for match, vectors in (
            ("vectors", taught),
            ("vectors", taught.copy()),
            ("vectors", 2 * taught),
            ("similarities", taught),
        )
    )
    assert one == same and len({one, other, way}) == 3


@pytest.fixture
def encoder() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "old", "dog", "sees", "house"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return BertForMaskedLM(BertConfig(vocab_size=10, **sizes)), tokenizer
