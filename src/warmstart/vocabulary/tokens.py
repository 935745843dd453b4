"""What a token means, whatever tokenizer it comes from: its bytes, whether it starts a word, its role.

GPT-2 style vocabularies print every byte as a visible character (`Ġthe`), SentencePiece marks the space
with `▁` and falls back to `<0xAB>` bytes, WordPiece marks the *inside* of a word (`##ing`). Raw vocabulary
strings of two tokenizers must therefore never be compared; these canonical tokens may.
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

ROLES = ("bos", "eos", "pad", "unk", "mask", "cls", "sep")
"""Named special roles; other special tokens have the role `additional`, ids without a token `unused`."""

Style = Literal["bytes", "metaspace", "wordpiece", "plain"]
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, slots=True)
class CanonicalToken:
    """One token, comparable across tokenizers.

    Attributes:
        id: Token id in its own tokenizer.
        text_bytes: Its text without the mark of a word start; may be a part of a UTF-8 character.
        starts_word: Whether a space (or a word boundary, in WordPiece) precedes the text.
        continuation: Whether it can only stand inside a word (`##ing`).
        role: First special role (`bos`, `eos`, `pad`, `unk`, `mask`, `cls`, `sep`, `additional`, `unused`).
        roles: All special roles; one token often has several (`<s>` is `bos` and `cls` in RoBERTa).
        byte: Whether it is a byte-fallback piece such as `<0xAB>`.
        string: Raw vocabulary string, for messages.
    """

    id: int
    text_bytes: bytes
    starts_word: bool
    continuation: bool
    role: str | None = None
    roles: tuple[str, ...] = ()
    byte: bool = False
    string: str = ""

    @property
    def key(self) -> tuple[bytes, bool]:
        """What two tokens of different tokenizers must share to be the same token."""
        return self.text_bytes, self.starts_word

    @property
    def text(self) -> str:
        """The text without the word-start space; bytes that are not UTF-8 become U+FFFD."""
        return self.text_bytes.decode("utf-8", errors="replace")

    @property
    def surface(self) -> str:
        """The text as it stands in running text: with the space that it starts with."""
        return (" " if self.starts_word else "") + self.text

    @property
    def surface_bytes(self) -> bytes:
        """The bytes for which it stands in running text, also where they are part of a character."""
        return (b" " if self.starts_word else b"") + self.text_bytes

    @property
    def is_text(self) -> bool:
        """Whether it stands for text and is valid UTF-8 (neither special nor part of a character)."""
        if self.role is not None or not self.text_bytes:
            return False
        try:
            self.text_bytes.decode("utf-8")
        except UnicodeDecodeError:
            return False
        return True


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """The 256 visible characters of byte-level BPE and the bytes for which they stand.

    Printable Latin-1 bytes stand for themselves; the others follow from U+0100 on, in order of value.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in set(printable)]
    return {**{chr(b): b for b in printable}, **{chr(256 + i): b for i, b in enumerate(hidden)}}


@functools.cache
def _visible() -> dict[int, str]:
    return {byte: character for character, byte in byte_alphabet().items()}


def to_byte_level(data: bytes) -> str:
    """The string by which a byte-level vocabulary would write `data`."""
    table = _visible()
    return "".join(table[byte] for byte in data)


def backend_state(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The tokenizer's `tokenizer.json` as a dictionary.

    Raises:
        UserError: For a slow tokenizer, which has none.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(
            f"{type(tokenizer).__name__} has no fast tokenizer",
            fix="convert it once with AutoTokenizer.from_pretrained(…, use_fast=True).save_pretrained(…)",
        )
    return json.loads(backend.to_str())


def components(state: Any) -> list[dict[str, Any]]:
    """All steps of a normaliser, pre-tokeniser or decoder, with `Sequence` steps unrolled."""
    if not state:
        return []
    for key in ("normalizers", "pretokenizers", "decoders", "processors"):
        if state.get("type") == "Sequence" and key in state:
            return [step for inner in state[key] for step in components(inner)]
    return [state]


def style_of(state: dict[str, Any]) -> Style:
    """How the vocabulary writes spaces and bytes, read from a `tokenizer.json` dictionary."""
    steps = [*components(state.get("pre_tokenizer")), *components(state.get("decoder"))]
    kinds = {step["type"] for step in steps}
    if "ByteLevel" in kinds:
        return "bytes"
    normaliser = components(state.get("normalizer"))
    if "Metaspace" in kinds or any(step.get("content") == "▁" for step in normaliser):
        return "metaspace"
    return "wordpiece" if state["model"].get("continuing_subword_prefix") else "plain"


def canonical_tokens(tokenizer: PreTrainedTokenizerFast) -> list[CanonicalToken]:
    """All tokens in canonical form, so that `result[i].id == i`.

    Ids that no token uses (holes) appear with the role `unused`. In WordPiece a single punctuation mark or
    CJK character without `##` does not count as a word start: the pre-tokeniser splits it off in any
    position, so its counterpart elsewhere is the piece without a space.

    Args:
        tokenizer: A fast tokenizer (`PreTrainedTokenizerFast`).
    """
    state = backend_state(tokenizer)
    style = style_of(state)
    prefix = state["model"].get("continuing_subword_prefix") or "##"
    suffix = state["model"].get("end_of_word_suffix") or ""
    roles = special_roles(tokenizer)
    added = {token["id"]: token["content"] for token in state.get("added_tokens", [])}
    vocabulary = {index: string for string, index in tokenizer.get_vocab().items()}
    size = len(state["model"]["vocab"])
    tokens: list[CanonicalToken] = []
    for index in range(max(vocabulary, default=-1) + 1):
        string = vocabulary.get(index)
        if string is None:
            tokens.append(CanonicalToken(index, b"", False, False, "unused", ("unused",)))
        elif index in roles:
            named = roles[index]
            tokens.append(
                CanonicalToken(index, string.encode(), False, False, named[0], named, string=string)
            )
        elif index in added and (index >= size or "▁" not in added[index]):
            # literal text: added tokens are matched before any remapping, also where an extension of the
            # model took in their ids; only pieces that SentencePiece marks are what they look like
            content = added[index]
            word = content.startswith(" ")
            tokens.append(
                CanonicalToken(index, content[word:].encode("utf-8", "replace"), word, False, string=string)
            )
        else:
            tokens.append(_canonical(index, string, style, prefix, suffix))
    return tokens


def special_roles(tokenizer: PreTrainedTokenizerFast) -> dict[int, tuple[str, ...]]:
    """Special token ids and their roles, the named ones first."""
    found: dict[int, list[str]] = {}
    for role in ROLES:
        index = getattr(tokenizer, f"{role}_token_id", None)
        if index is not None:
            found.setdefault(int(index), []).append(role)
    others = {*tokenizer.all_special_ids}
    others.update(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
    for index in sorted(others - found.keys()):
        found[index] = ["additional"]
    return {index: tuple(names) for index, names in found.items()}


def _canonical(index: int, string: str, style: Style, prefix: str, suffix: str) -> CanonicalToken:
    if style == "bytes":
        table = byte_alphabet()
        try:
            data = bytes(table[character] for character in string)
        except KeyError:  # a token put into the vocabulary as plain text
            data = string.encode("utf-8", "replace")
        word = data.startswith(b" ")
        return CanonicalToken(index, data[word:], word, False, string=string)
    if style == "wordpiece":
        if string.startswith(prefix) and len(string) > len(prefix):
            return CanonicalToken(
                index, string[len(prefix) :].encode("utf-8", "replace"), False, True, string=string
            )
        lone = len(string) == 1 and splits_words(string)
        return CanonicalToken(index, string.encode("utf-8", "replace"), not lone, False, string=string)
    if match := _BYTE.fullmatch(string):
        return CanonicalToken(index, bytes([int(match[1], 16)]), False, False, byte=True, string=string)
    if style == "metaspace":
        word = string.startswith("▁")
        data = string[word:].replace("▁", " ").encode("utf-8", "replace")
        return CanonicalToken(index, data, word, False, string=string)
    text = string.removesuffix(suffix) if suffix else string
    word = text.startswith(" ")
    return CanonicalToken(index, text[word:].encode("utf-8", "replace"), word, False, string=string)


def splits_words(character: str) -> bool:
    """Whether BERT's pre-tokeniser makes this character a word of its own (punctuation, CJK ideographs)."""
    code = ord(character)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    if unicodedata.category(character).startswith("P"):
        return True
    ideographs = (
        (0x4E00, 0x9FFF),
        (0x3400, 0x4DBF),
        (0x20000, 0x2CEAF),
        (0xF900, 0xFAFF),
        (0x2F800, 0x2FA1F),
    )
    return any(first <= code <= last for first, last in ideographs)
