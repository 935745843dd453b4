"""Texts with a number, by which an objective finds what a teacher said of each before training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from warmstart.corpus.text_rows import TextRows

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class NumberedTexts(TextRows):
    """Texts with their number and, where there are any, classes.

    Attributes:
        rows: `(N, 2, L)` int32: token ids, filled up with -1; and behind them the number of the text and its
            class, -1 for none.
    """


def numbered_texts(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int,
    classes: np.ndarray | None = None,
) -> NumberedTexts:
    """Cut texts into tokens, with the special ones of the tokenizer.

    Args:
        texts: Longer ones lose their end.
        tokenizer: Of the student.
        length: Tokens of a block, at least 2.
        classes: `(N,)`, -1 for a text without a label.
    """
    found = np.full((len(texts), 2, length), -1, dtype=np.int32)
    encoded = tokenizer(list(texts), truncation=True, max_length=length, return_attention_mask=False)
    for row, ids in zip(found, encoded["input_ids"], strict=True):
        row[0, : len(ids)] = ids
    found[:, 1, 0] = np.arange(len(texts))
    if classes is not None:
        found[:, 1, 1] = classes
    return NumberedTexts(found)


def encoder_inputs(blocks: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, (B, L'), of blocks (B, 2, L); L' is the longest text's length."""
    import torch

    ids = torch.from_numpy(np.ascontiguousarray(blocks[:, 0])).long()
    mask = ids >= 0
    width = int(mask.sum(1).max())
    filled = torch.where(mask, ids, tokenizer.pad_token_id or 0)
    return {"input_ids": filled[:, :width], "attention_mask": mask[:, :width].long()}
