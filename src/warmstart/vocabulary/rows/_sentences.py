"""Vectors of strings from an encoder: hidden states of a checkpoint, averaged over the tokens of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.foundation.settings import digest

if TYPE_CHECKING:
    from warmstart.vocabulary.rows._base import RowContext


def encoded_strings(context: RowContext, encoder: str, texts: Sequence[str]) -> np.ndarray:
    """Mean of the last hidden states over all tokens of each text, special ones included, as in
    sentence-transformers; kept for all arms.

    Args:
        context: Of the initialiser; its cache is used.
        encoder: Checkpoint of an encoder: folder, named source or hub id.
        texts: Strings, each encoded once however often it stands here.

    Returns:
        `(len(texts), h)` float32; zero for strings of white space alone.
    """
    from warmstart.checkpoint import resolve

    checkpoint = resolve(encoder)
    unique = sorted({text for text in texts if text.strip()}, key=lambda text: (len(text), text))
    key = ("strings", checkpoint.fingerprint, digest(unique))
    if key not in context.aux:
        context.aux[key] = _encode(checkpoint.load_model(), checkpoint.load_tokenizer(), unique)
    place = {text: number for number, text in enumerate(unique)}
    rows = np.array([place.get(text, len(unique)) for text in texts], dtype=np.int64)
    table: np.ndarray = context.aux[key]
    return np.concatenate([table, np.zeros((1, table.shape[1]), table.dtype)])[rows]


def _encode(model: Any, tokenizer: Any, texts: list[str], batch: int = 256) -> np.ndarray:
    import torch

    body = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    found = [np.empty((0, model.config.hidden_size), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(texts), batch):
            inputs = tokenizer(
                texts[start : start + batch], padding=True, truncation=True, return_tensors="pt"
            )
            mask = inputs["attention_mask"]
            states = body(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
            total = (states * mask[:, :, None]).sum(dim=1)
            found.append((total / mask.sum(dim=1, keepdim=True).clamp(min=1)).float().numpy())
    return np.concatenate(found)
