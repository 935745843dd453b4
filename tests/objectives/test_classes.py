"""Classes of texts: the loss by hand, and what a batch may not depend on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from warmstart.objectives._classes import Classes, ClassLossSettings
from warmstart.objectives._numbered import NumberedTexts, numbered_texts

CLASSES = 3


class Letters:
    """A tokenizer of lower-case letters: a is 1, framed by 27 and 28; 0 is padding."""

    pad_token_id = 0

    def __call__(self, texts: list[str], *, max_length: int, **_: Any) -> dict[str, list[list[int]]]:
        rows = [[27, *(ord(c) - 96 for c in text), 28] for text in texts]
        return {"input_ids": [[*row[: max_length - 1], 28] if len(row) > max_length else row for row in rows]}


def model() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=29,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        num_labels=CLASSES,
        initializer_range=0.3,
    )
    return BertForSequenceClassification(config).double().eval()


TEXTS = ["a", "hello", "world", "bb", "hi"]
GIVEN = np.array([0, 2, -1, 1, -1])
TAUGHT = np.random.default_rng(0).normal(size=(5, CLASSES), scale=2)


def objective(*, taught: bool = True, **options: Any) -> Classes:
    tokenizer: Any = Letters()
    return Classes(ClassLossSettings.parse(options), tokenizer, taught=TAUGHT if taught else None)


def blocks(length: int = 12) -> NumberedTexts:
    tokenizer: Any = Letters()
    return numbered_texts(TEXTS, tokenizer, length=length, classes=GIVEN)


def batch_of(asked: Classes, order: list[int], length: int = 12) -> dict[str, torch.Tensor]:
    whole = blocks(length)
    return asked.collate(np.stack([whole[i] for i in order]).astype(np.int64), np.random.default_rng(0))


def softmax(row: np.ndarray) -> list[float]:
    powers = [math.exp(value) for value in row]
    return [power / sum(powers) for power in powers]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def single_logits() -> np.ndarray:
    """Each text alone, without padding."""
    found = []
    for text in TEXTS:
        ids = torch.tensor([[27, *(ord(c) - 96 for c in text), 28]])
        found.append(model()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].tolist())
    return np.array(found)


@pytest.mark.parametrize("kind", ["soft-cross-entropy", "forward-kl", "jensen-shannon"])
@pytest.mark.parametrize(("alpha", "beta", "heat"), [(0.0, 1.0, 1.0), (0.3, 0.7, 1.0), (1.0, 0.5, 2.0)])
def test_the_loss_by_hand(kind: str, alpha: float, beta: float, heat: float) -> None:
    asked = objective(kind=kind, alpha=alpha, beta=beta, temperature=heat)
    order = [3, 0, 2, 1]
    total, count = asked.loss(model(), batch_of(asked, order))
    logits, expected = single_logits(), 0.0
    taught = TAUGHT.astype(np.float32).astype(np.float64)
    for i in order:
        p, q = softmax(taught[i] / heat), softmax(logits[i] / heat)
        middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        apart = {
            "soft-cross-entropy": -sum(a * math.log(b) for a, b in zip(p, q, strict=True)),
            "forward-kl": kl(p, q),
            "jensen-shannon": (kl(p, middle) + kl(q, middle)) / 2,
        }[kind]
        expected += beta * heat**2 * apart
        if GIVEN[i] >= 0:
            expected -= alpha * math.log(softmax(logits[i])[GIVEN[i]])
    assert count.item() == 4
    assert total.item() == pytest.approx(expected, rel=1e-6)


def test_labels_alone() -> None:
    asked = objective(taught=False, alpha=1.0)
    total, count = asked.loss(model(), batch_of(asked, [0, 1, 3]))
    logits = single_logits()
    expected = -sum(math.log(softmax(logits[i])[GIVEN[i]]) for i in (0, 1, 3))
    assert count.item() == 3
    assert total.item() == pytest.approx(expected, rel=1e-6)


def test_sums_add_up_however_texts_are_batched() -> None:
    asked = objective(kind="jensen-shannon", alpha=0.5, beta=0.5)
    whole, _ = asked.loss(model(), batch_of(asked, [0, 1, 2, 3, 4]))
    parts = [asked.loss(model(), batch_of(asked, part))[0].item() for part in ([4], [1, 0], [3, 2])]
    assert sum(parts) == pytest.approx(whole.item(), rel=1e-12)
    longer, _ = asked.loss(model(), batch_of(asked, [0, 1, 2, 3, 4], length=16))
    assert longer.item() == pytest.approx(whole.item(), rel=1e-12), "padding counts"


def test_a_batch_ends_with_its_longest_text() -> None:
    batch = batch_of(objective(), [0, 3])
    assert batch["input_ids"].tolist() == [[27, 1, 28, 0], [27, 2, 2, 28]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["labels"].tolist() == [0, 1] and batch_of(objective(), [2])["labels"].tolist() == [-100]
    assert batch["taught"].tolist() == TAUGHT.astype(np.float32)[[0, 3]].tolist()


def test_long_texts_lose_their_end() -> None:
    assert batch_of(objective(), [1], length=4)["input_ids"].tolist() == [[27, 8, 5, 28]]


def test_what_is_taught_is_part_of_the_run() -> None:
    tokenizer: Any = Letters()
    other = Classes(ClassLossSettings(), tokenizer, taught=TAUGHT + 1e-3)
    assert objective().fingerprint == objective().fingerprint != other.fingerprint
    assert objective(kind="jensen-shannon").fingerprint != objective().fingerprint
    assert blocks().fingerprint == blocks().fingerprint != blocks(16).fingerprint
