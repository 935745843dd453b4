"""Sentence retrieval: is the translation of a sentence its nearest neighbour?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


class Retrieval(BaseModel):
    """How well one side finds the other, both ways."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    pairs: int
    """Sentence pairs; each sentence is looked for among all sentences of the other side."""
    accuracy: float
    """Share of first sentences whose nearest second sentence is their own."""
    accuracy_back: float
    """The same from second to first sentences."""
    mrr: float
    """Mean of 1 / rank of the own second sentence."""
    mrr_back: float
    """The same from second to first sentences."""


def retrieval(first: np.ndarray, second: np.ndarray) -> Retrieval:
    """Accuracy at one and mean reciprocal rank by cosine, in both directions.

    Args:
        first: Vectors of the first sentences, `(n, d)`.
        second: Vectors of their translations, `(n, d)`.

    Raises:
        UserError: The two sides differ in number or width, are empty, or hold numbers that are not finite.
    """
    if first.shape != second.shape or first.ndim != 2 or not first.size:
        raise UserError(
            f"retrieval needs two equally many vectors of equal width, got {first.shape} and {second.shape}"
        )
    there, back = ranks(first, second), ranks(second, first)
    return Retrieval(
        pairs=len(first),
        accuracy=float((there == 1).mean()),
        accuracy_back=float((back == 1).mean()),
        mrr=float((1 / there).mean()),
        mrr_back=float((1 / back).mean()),
    )


def ranks(queries: np.ndarray, candidates: np.ndarray, *, block: int = 1024) -> np.ndarray:
    """Rank of candidate i for query i among all candidates by cosine, `(n,)`, the nearest being 1.

    A candidate that is as near as the right one counts as nearer: a model that gives every sentence the same
    vector finds nothing. Ties are judged to a millionth, since batches differ in rounding.

    Args:
        queries: `(n, d)`.
        candidates: `(n, d)`.
        block: Queries compared at a time; memory is `block * n` numbers.
    """
    left, right = unit(queries), unit(candidates)
    out = np.empty(len(left), dtype=np.int64)
    for start in range(0, len(left), block):
        scores = left[start : start + block] @ right.T
        own = scores[np.arange(len(scores)), np.arange(start, start + len(scores))]
        out[start : start + block] = (scores >= own[:, None] - 1e-6).sum(axis=1)  # itself too
    return out


def sentence_vectors(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_length: int = 128,
    batch_tokens: int = 8192,
    bf16: bool = False,
) -> np.ndarray:
    """Mean of the last hidden states over a text's tokens, special ones included, `(n, d)` float32.

    The pooling of sentence-transformers' models. Batches hold texts of similar length; padding is masked, so
    neither it nor the order of the texts matters.

    Args:
        model: A transformers encoder, with or without a head.
        tokenizer: Its tokenizer, with a padding token.
        texts: Sentences; longer ones are cut to `max_length` tokens.
        max_length: Tokens per sentence at most, special ones included.
        batch_tokens: Positions per batch, padding included.
        bf16: Whether matrix products run in bfloat16.
    """
    from warmstart.evaluation.likelihood import max_positions, measuring

    limit = max_positions(model)
    longest = max_length if limit is None else min(max_length, limit)
    if not texts:
        raise UserError("there is no sentence to encode")
    cut = tokenizer(list(texts), truncation=True, max_length=longest, return_attention_mask=False)
    encoded = cut["input_ids"]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    out = np.empty((0, 0), dtype=np.float32)
    with measuring(model, bf16=bf16):
        while order:
            size = max(1, batch_tokens // len(encoded[order[-1]]))
            part, order = order[-size:], order[:-size]
            vectors = pooled(model, padded(tokenizer, [encoded[i] for i in part])).float().cpu().numpy()
            if not out.size:
                out = np.empty((len(encoded), vectors.shape[1]), dtype=np.float32)
            out[part] = vectors
    return out


def padded(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, `(B, L)`, padded on the right."""
    import torch

    width = max(len(row) for row in rows)
    pad = tokenizer.pad_token_id or 0
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}


def pooled(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Mean of the encoder's last hidden states over unmasked positions, `(B, d)`; differentiable."""
    device = next(model.parameters()).device
    inputs = {name: value.to(device) for name, value in inputs.items()}
    return mean_over(model.base_model(**inputs).last_hidden_state, inputs["attention_mask"])


def mean_over(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of hidden states `(B, L, d)` over the places of a mask `(B, L)`, `(B, d)`; differentiable."""
    weights = mask.to(hidden.dtype)[:, :, None]
    total: Tensor = (hidden * weights).sum(dim=1) / weights.sum(dim=1)
    return total


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors `(n, d)` of length one in float64; a zero vector stays one."""
    wide = vectors.astype(np.float64)
    if not np.isfinite(wide).all():
        raise UserError("some vectors hold numbers that are not finite", where="sentence vectors")
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.divide(wide, length, out=np.zeros_like(wide), where=length > 0)
