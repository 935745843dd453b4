"""Texts with calls as blocks of tokens: what the training and the measuring of tools read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from warmstart.corpus.calls import Call, calls_of
from warmstart.corpus.text_rows import TextRows
from warmstart.foundation.errors import UserError
from warmstart.vocabulary.tools import id_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from warmstart.corpus import Document

_AT_ONCE = 512


@dataclass(frozen=True)
class ToolTexts(TextRows):
    """Texts in which calls are marked.

    Attributes:
        rows: Ids and labels, `(N, 2, L)` int32, filled up with -1 (see
            [`mark_calls`][warmstart.objectives.tool_rows.mark_calls]).
    """

    def counts(self, ids: Iterable[int]) -> np.ndarray:
        """Calls of each of `ids` that are asked for."""
        labels = self.rows[:, 1]
        return np.array([int((labels == index).sum()) for index in ids], dtype=np.int64)


def tool_texts(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerFast,
    tools: Mapping[str, int],
    *,
    length: int,
    examples: int | None = None,
    only: Container[str] | None = None,
) -> ToolTexts:
    """Cut texts with calls into tokens, behind the token after which a text begins.

    A token belongs to a call when it holds a character of it that is no space. A text longer than `length`
    loses its end, also in the middle of a call.

    Args:
        documents: Texts with the field `calls`.
        tokenizer: With the tools.
        tools: Name -> id.
        length: Tokens of a block.
        examples: Calls of each tool that are asked for, at most: the first ones. Further ones are read as
            text, and nothing is predicted there. Texts without any call left are dropped.
        only: Ask for the calls of these tools only.

    Raises:
        UserError: A call that cannot be read (see `calls_of`), a tool that is not there, two calls in one
            token, or not a single call.
    """
    from warmstart.evaluation.special import start_token
    from warmstart.objectives.tool_rows import mark_calls

    start = start_token(tokenizer)
    taken: Counter[str] = Counter()
    rows: list[np.ndarray] = []
    for group in _groups(documents):
        encoded = tokenizer(
            [document.text for document in group],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
        )
        for document, ids, offsets in zip(group, encoded["input_ids"], encoded["offset_mapping"]):
            spans: list[tuple[int, int, int]] = []
            for call in calls_of(document):
                first, last = _span(document, call, offsets)
                index = id_of(tools, call.tool, document.id)
                if spans and first + 1 < spans[-1][1]:
                    raise UserError(
                        f"the call of {call.tool!r} shares a token with the one before it",
                        where=document.id,
                        fix="mark the two as one",
                    )
                if first + 1 >= length:
                    break
                wanted = (only is None or call.tool in only) and (
                    examples is None or taken[call.tool] < examples
                )
                taken[call.tool] += wanted
                spans.append((first + 1, last + 1, index if wanted else -1))
            if not any(index >= 0 for _, _, index in spans):
                continue
            whole = [start, *ids][:length]
            marked = mark_calls(whole, [(a, min(b, len(whole)), index) for a, b, index in spans])
            row = np.full((2, length), -1, dtype=np.int32)
            row[:, : len(whole)] = marked
            rows.append(row)
    if not rows:
        raise UserError("no tool is called in this text", fix="check the corpus and its split")
    return ToolTexts(np.stack(rows))


def in_order(documents: Iterable[Document], seed: int | str) -> list[Document]:
    """Documents by a hash of the seed and their text: the same random order on every machine."""

    def mark(document: Document) -> bytes:
        text = f"{seed}\n{document.text}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=16).digest()

    return sorted(documents, key=mark)


def _groups(documents: Iterable[Document]) -> Iterable[list[Document]]:
    held: list[Document] = []
    for document in documents:
        held.append(document)
        if len(held) == _AT_ONCE:
            yield held
            held = []
    if held:
        yield held


def _span(document: Document, call: Call, offsets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """First token of a call and the place behind its last one."""
    inside = [
        place
        for place, (a, b) in enumerate(offsets)
        if a < call.stop and b > call.start and document.text[max(a, call.start) : min(b, call.stop)].strip()
    ]
    if not inside:
        raise UserError(
            f"the tokenizer makes nothing of the call of {call.tool!r} at {call.start}–{call.stop}",
            where=document.id,
            fix="mark characters that are text",
        )
    return inside[0], inside[-1] + 1
