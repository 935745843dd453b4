"""Where words start, read off token ids: a table over the vocabulary of any tokenizer.

Packed blocks hold ids without their text. Whether token i starts a word depends on the token itself and on
how the one before it ends, so two small classes per vocabulary entry are enough, and whole batches are done
with array operations.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.evaluation.words import NO_SPACES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SPACE, _LETTER, _MARK, _ALWAYS, _NEVER, _BLANK = range(6)
"""How a token begins or ends: blank; letter, digit or underscore; punctuation. It may also begin in a way
that starts a word whatever stood before (after a blank, CJK, special) or never (inside a character), or be a
single blank, to which the next word is joined."""


@dataclass(frozen=True)
class WordTable:
    """How each vocabulary entry begins and ends.

    Attributes:
        first: Class of the beginning, (V,).
        last: Class of the end, (V,).
        special: Whether it is a special token, (V,).
        regular: Ids that are not special and in use.
    """

    first: np.ndarray
    last: np.ndarray
    special: np.ndarray
    regular: np.ndarray

    def starts(self, blocks: np.ndarray) -> np.ndarray:
        """Whether each token of `blocks` (B, L) starts a word; special tokens stand alone."""
        first, last = self.first[blocks], self.last[blocks]
        found = np.ones(blocks.shape, dtype=bool)
        begins, ended = first[:, 1:], last[:, :-1]
        found[:, 1:] = (begins == _ALWAYS) | (
            (begins != ended) & (begins != _NEVER) & ((ended != _BLANK) | (begins == _SPACE))
        )
        special = self.special[blocks]
        found |= special
        found[:, 1:] |= special[:, :-1]
        return found


def word_table(tokenizer: PreTrainedTokenizerBase) -> WordTable:
    """Table of a WordPiece (`##`), byte-level (`Ġ`) or SentencePiece (`▁`) tokenizer."""
    vocabulary = tokenizer.get_vocab()
    size = max(vocabulary.values()) + 1
    first = np.full(size, _ALWAYS, dtype=np.int8)
    last = np.full(size, _MARK, dtype=np.int8)
    special = np.zeros(size, dtype=bool)
    special[[i for i in tokenizer.all_special_ids if i < size]] = True
    surface = _Surface(tokenizer)
    for token, index in vocabulary.items():
        if not special[index]:
            first[index], last[index] = _classes(surface(token))
    used = np.zeros(size, dtype=bool)
    used[list(vocabulary.values())] = True
    return WordTable(first, last, special, np.flatnonzero(used & ~special))


class _Surface:
    """Bytes that a vocabulary entry stands for; a leading blank where it starts a word by convention."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        described = json.loads(backend.to_str()) if backend is not None else {}
        model = described.get("model") or {}
        parts = json.dumps([described.get("pre_tokenizer"), described.get("decoder")])
        self.byte_level = '"ByteLevel"' in parts
        self.prefix = model.get("continuing_subword_prefix") if model.get("type") == "WordPiece" else None
        self.suffix = model.get("end_of_word_suffix")

    def __call__(self, token: str) -> bytes:
        if self.prefix:
            return (
                token.removeprefix(self.prefix).encode() if token.startswith(self.prefix) else _spaced(token)
            )
        if self.byte_level and all(c in _byte_of() for c in token):
            return bytes(_byte_of()[c] for c in token)
        if match := re.fullmatch("<0x([0-9A-Fa-f]{2})>", token):
            return bytes([int(match[1], 16)])
        if self.suffix and token.endswith(self.suffix):
            token = token.removesuffix(self.suffix) + " "
        return token.replace("▁", " ").encode("utf-8", "replace")


def _spaced(token: str) -> bytes:
    return b" " + token.encode()


def _classes(data: bytes) -> tuple[int, int]:
    if not data:
        return _NEVER, _MARK
    if data == b" ":
        return _ALWAYS, _BLANK
    if data[0] & 0xC0 == 0x80:  # a byte inside a character
        first = _NEVER
    else:
        text = data.decode("utf-8", "replace")
        head = text[0]
        if head.isspace():
            first = _ALWAYS if text.strip() else _SPACE
        elif head == "\ufffd" and data[:1] != b"\xef":  # begins with a part of a character
            first = _ALWAYS if 0xE3 <= data[0] <= 0xE9 else _LETTER  # kana and Han start words, others join
        elif _expressions()[0].match(head):
            first = _ALWAYS
        elif _expressions()[2].match(head):
            first = _NEVER  # an accent belongs to the letter before it
        else:
            first = _LETTER if _expressions()[1].match(head) else _MARK
    tail = data.decode("utf-8", "replace")[-1]
    if tail.isspace():
        return first, _SPACE
    return first, _LETTER if tail == "\ufffd" or _expressions()[1].match(tail) else _MARK


@functools.cache
def _expressions() -> tuple[Any, Any, Any]:
    import regex

    return (
        regex.compile(rf"(?!\p{{M}})[{NO_SPACES}]"),
        regex.compile(r"[\p{L}\p{M}\p{N}_]"),
        regex.compile(r"\p{M}"),
    )


@functools.cache
def _byte_of() -> dict[str, int]:
    """Inverse of GPT-2's printable names of the 256 bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {chr(b): b for b in printable}
    names.update({chr(256 + n): b for n, b in enumerate(b for b in range(256) if b not in printable)})
    return names
