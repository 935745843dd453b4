"""What a classifier of texts says: its logits, and of which texts it is most certain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def class_logits(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_length: int = 128,
    batch_tokens: int = 8192,
    bf16: bool = False,
) -> np.ndarray:
    """Logits of each text, `(n, C)` float32.

    Batches hold texts of similar length; padding is masked, so neither it nor the order matters.

    Args:
        model: A classifier of transformers (`…ForSequenceClassification`) over an encoder.
        tokenizer: Its tokenizer.
        texts: At least one; longer ones are cut.
        max_length: Tokens per text at most, special ones included.
        batch_tokens: Positions per batch, padding included.
        bf16: Whether matrix products run in bfloat16.

    Raises:
        UserError: There is no text.
    """
    from warmstart.evaluation.head import unwrap
    from warmstart.evaluation.likelihood import max_positions, measuring
    from warmstart.evaluation.retrieval import padded

    inner = unwrap(model)
    limit = max_positions(inner)
    longest = max_length if limit is None else min(max_length, limit)
    if not texts:
        raise UserError("there is no text to classify")
    rows = tokenizer(list(texts), truncation=True, max_length=longest, return_attention_mask=False)[
        "input_ids"
    ]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    device = next(inner.parameters()).device
    found: dict[int, np.ndarray] = {}
    with measuring(inner, bf16=bf16):
        while order:
            count = max(1, batch_tokens // len(rows[order[-1]]))
            part, order = order[-count:], order[:-count]
            inputs = padded(tokenizer, [rows[i] for i in part])
            logits = inner(**{name: value.to(device) for name, value in inputs.items()}).logits
            found |= zip(part, logits.float().cpu().numpy(), strict=True)
    return np.stack([found[i] for i in range(len(rows))])


def error_rate(logits: np.ndarray, classes: np.ndarray) -> float:
    """Share of texts whose largest logit `(n, C)` is not that of their class `(n,)`."""
    return float(np.mean(logits.argmax(axis=1) != classes))


def most_certain(logits: np.ndarray, k: int) -> np.ndarray:
    """Numbers of the k texts of each predicted class with the highest probability of it, ascending.

    The selection of SSLD ("Beyond Self-Supervision: A Simple Yet Effective Network Distillation Alternative
    to Improve Backbones", arXiv 2103.05959), which takes those images of a large pool that look most like one
    of the classes. A class that is predicted less often keeps all of its texts; the earlier one of equals is
    taken.

    Args:
        logits: `(n, C)` of the teacher.
        k: Texts of a class at most.
    """
    wide = logits.astype(np.float64)
    highest = wide.max(axis=1, keepdims=True)
    certain = 1 / np.exp(wide - highest).sum(axis=1)
    predicted, kept = wide.argmax(axis=1), []
    for label in np.unique(predicted):
        members = np.flatnonzero(predicted == label)
        kept.append(members[np.argsort(-certain[members], kind="stable")[:k]])
    return np.sort(np.concatenate(kept))
