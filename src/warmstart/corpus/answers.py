"""Texts of which only the answer is asked for, as blocks of tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from warmstart.corpus.document import Document
from warmstart.corpus.text_rows import TextRows
from warmstart.evaluation.special import end_token, start_token
from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class AnswerTexts(TextRows):
    """Texts, each with what is asked for.

    Attributes:
        rows: `(N, 2, L)` int32: token ids; and those that are asked for. Both filled up with -1.
        num_bytes: UTF-8 bytes of all answers.
        dropped: Texts that were longer than a block or had no answer.
    """

    num_bytes: int
    dropped: int


def answer_texts(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase, *, length: int, marker: str = "\nA:"
) -> AnswerTexts:
    """Cut texts into tokens, behind the token after which a text begins and closed by that which ends one.

    The answer is what stands behind the last `marker`, and the end of the text. A token counts to it when it
    holds a character of it.

    Args:
        documents: Texts with an answer at their end.
        tokenizer: A fast tokenizer with an end of text.
        length: Tokens of a block; longer texts are dropped, as their answer would be cut.
        marker: What stands in front of an answer.

    Raises:
        UserError: No end of text, or not a single text with a whole answer.
    """
    found: list[np.ndarray] = []
    total, dropped, begin, end = 0, 0, start_token(tokenizer), end_token(tokenizer)
    for document in documents:
        place = document.text.rfind(marker)
        start = place + len(marker)
        cut = tokenizer(document.text, add_special_tokens=False, return_offsets_mapping=True)
        ids = [begin, *cut["input_ids"], end]
        if place < 0 or len(ids) > length:
            dropped += 1
            continue
        asked = [-1, *(i if last > start else -1 for i, (_, last) in _pairs(cut)), end]
        row = np.full((2, length), -1, dtype=np.int32)
        row[0, : len(ids)], row[1, : len(ids)] = ids, asked
        found.append(row)
        total += len(document.text[start:].encode())
    if not found:
        raise UserError(
            f"none of {dropped} texts has an answer behind {marker!r} within {length} tokens",
            fix="give a longer block_size, or another marker",
        )
    return AnswerTexts(np.stack(found), total, dropped)


def _pairs(cut: object) -> Iterable[tuple[int, tuple[int, int]]]:
    """Ids with their places in the text."""
    return zip(cut["input_ids"], cut["offset_mapping"], strict=True)  # type: ignore[index]
