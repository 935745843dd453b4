"""Cutting the text of any token into tokens of the source, without stray spaces or word-initial forms."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.tokens import (
    CanonicalToken,
    backend_state,
    splits_words,
    style_of,
    to_byte_level,
)

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerFast

SENTINELS = ("\u2042", "\ue000", "\uf8ff")
"""Characters put before the text: punctuation first, since pre-tokenisers split it off; then private use."""
LETTER = "\ua66e"
"""The sentinel before an apostrophe: byte-level patterns cut `'t` as one word only behind a letter."""


class Decomposer:
    """Source ids of the *text* of tokens.

    The text is encoded behind a sentinel, so that it stands inside running text: a SentencePiece model adds
    its leading `▁` to the sentinel instead, a byte-level model with `add_prefix_space` likewise. The tokens
    of the sentinel are recognised by their character offsets and dropped. Three cases cannot go through
    `encode` and are cut by the model itself: parts of UTF-8 characters (byte level), WordPiece
    continuations (greedy over `##` pieces), and text that fuses with every sentinel.

    Args:
        tokenizer: Source tokenizer.
        tokens: Its canonical tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tokens: Sequence[CanonicalToken]) -> None:
        self._backend = tokenizer.backend_tokenizer
        state = backend_state(tokenizer)
        self.style = style_of(state)
        self._prefix = state["model"].get("continuing_subword_prefix") or "##"
        self._vocabulary: dict[str, int] = tokenizer.get_vocab()
        self._special = {token.id for token in tokens if token.role is not None}
        unknown = state["model"].get("unk_id")
        if unknown is None:
            unknown = self._vocabulary.get(state["model"].get("unk_token") or "")
        self._special |= {unknown} - {None}
        self._bytes = {token.text_bytes[0]: token.id for token in tokens if token.byte}

    def batch(self, tokens: Sequence[CanonicalToken]) -> list[list[int]]:
        """Pieces of many tokens in one multi-threaded pass; special tokens get none.

        Equal to calling [`one`][warmstart.vocabulary.pieces.Decomposer.one] for each.
        """
        result: list[list[int]] = [[] for _ in tokens]
        direct = [i for i, token in enumerate(tokens) if self._encodable(token)]
        with self._plain_encoding():
            texts = [sentinels(tokens[i].surface)[0] + tokens[i].surface for i in direct]
            encodings = self._backend.encode_batch(texts, add_special_tokens=False)
        retry = []
        for i, encoding in zip(direct, encodings, strict=True):
            found = self._after_sentinel(encoding)
            if found is None:
                retry.append(i)
            else:
                result[i] = found
        handled = set(direct) - set(retry)
        for i, token in enumerate(tokens):
            if i not in handled:
                result[i] = self.one(token)
        return result

    def one(self, token: CanonicalToken) -> list[int]:
        """Pieces of one token."""
        if token.role is not None or not token.text_bytes:
            return []
        if self.style == "bytes" and not token.is_text:
            return self._by_model(to_byte_level(b" " * token.starts_word + token.text_bytes))
        ids: list[int] = []
        for number, segment in enumerate(segments(token.text_bytes)):
            if isinstance(segment, int):
                ids += [self._bytes[segment]] if segment in self._bytes else []
            else:
                first = number == 0
                ids += self._text(
                    segment, starts_word=token.starts_word and first, inside=not first or token.continuation
                )
        return ids

    def encode_plain(self, texts: Sequence[str]) -> list[Encoding]:
        """Encodings of whole texts without special tokens, truncation or padding."""
        with self._plain_encoding():
            found: list[Encoding] = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return found

    def text(self, text: str) -> list[int]:
        """Source ids of running text that follows other text (begin with a space to start a word)."""
        return self._text(text.removeprefix(" "), starts_word=text.startswith(" "), inside=False)

    def _encodable(self, token: CanonicalToken) -> bool:
        return token.is_text and not (self.style == "wordpiece" and self._is_inside(token))

    @staticmethod
    def _is_inside(token: CanonicalToken) -> bool:
        """Whether WordPiece must cut it as a continuation: `##xyz`, or `xyz` without a space elsewhere."""
        if token.continuation:
            return True
        first = token.text[0]
        return not token.starts_word and not (first.isspace() or splits_words(first))

    def _text(self, text: str, *, starts_word: bool, inside: bool) -> list[int]:
        if self.style == "wordpiece" and not starts_word:
            first = text[0]
            if inside or not (first.isspace() or splits_words(first)):
                return self._continuation(text)
        surface = (" " if starts_word else "") + text
        with self._plain_encoding():
            for sentinel in sentinels(surface):
                encoding = self._backend.encode(sentinel + surface, add_special_tokens=False)
                found = self._after_sentinel(encoding)
                if found is not None:
                    return found
        return self._by_model(self._internal(surface))

    def _after_sentinel(self, encoding: Encoding) -> list[int] | None:
        """Ids whose characters lie behind the sentinel; None when a piece contains both."""
        border = 1
        ids = []
        for index, (start, end) in zip(encoding.ids, encoding.offsets):
            if start < border < end and index not in self._special:
                return None
            if start >= border and index not in self._special:
                ids.append(index)
        return ids

    def _continuation(self, text: str) -> list[int]:
        """Greedy longest match over `##` pieces; a following word, after a space, is cut as a word."""
        backend = self._backend
        plain = backend.normalizer.normalize_str(text) if backend.normalizer else text
        words = backend.pre_tokenizer.pre_tokenize_str(plain) if backend.pre_tokenizer else [(plain, (0, 1))]
        ids: list[int] = []
        for word, (start, _) in words:
            if start == 0 and not splits_words(word[0]):
                ids += self._greedy(word)
            elif start == 0 and self._prefix + word in self._vocabulary:
                ids.append(self._vocabulary[self._prefix + word])
            else:
                ids += self._by_model(word)
        return ids

    def _greedy(self, word: str) -> list[int]:
        ids, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                index = self._vocabulary.get(self._prefix + word[start:end])
                if index is not None:
                    ids.append(index)
                    start = end
                    break
            else:
                return []  # as in WordPiece: one unknown character makes the whole word unknown
        return ids

    def _internal(self, surface: str) -> str:
        if self.style == "bytes":
            return to_byte_level(surface.encode())
        return surface.replace(" ", "▁") if self.style == "metaspace" else surface.strip()

    def _by_model(self, internal: str) -> list[int]:
        try:
            found = self._backend.model.tokenize(internal)
        except Exception as error:  # the Rust side raises bare exceptions, e.g. Unigram without an unk id
            raise UserError(
                f"the source tokenizer cannot cut {internal!r}: {error}",
                fix="check that its tokenizer.json defines an unknown token",
            ) from error
        return [token.id for token in found if token.id not in self._special]

    def _plain_encoding(self) -> _PlainEncoding:
        return _PlainEncoding(self._backend)


def sentinels(surface: str) -> tuple[str, ...]:
    """Characters to try before a text, the best first."""
    return (LETTER, *SENTINELS) if surface.startswith("'") else SENTINELS


class _PlainEncoding:
    """No truncation, no padding, and `<s>` in a text is three characters; as it was after the block."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __enter__(self) -> None:
        self._state = self._backend.truncation, self._backend.padding, self._backend.encode_special_tokens
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()

    def __exit__(self, *_: object) -> None:
        truncation, padding, self._backend.encode_special_tokens = self._state
        if truncation:
            self._backend.enable_truncation(**truncation)
        if padding:
            self._backend.enable_padding(**padding)


@functools.lru_cache(maxsize=4096)
def segments(data: bytes) -> tuple[str | int, ...]:
    """Maximal runs of valid UTF-8 as text, and every other byte by itself.

    >>> segments(b"a\\xe4\\xb8")
    ('a', 228, 184)
    """
    return tuple(_segments(data))


def _segments(data: bytes) -> Iterator[str | int]:
    while data:
        try:
            yield data.decode()
            return
        except UnicodeDecodeError as error:
            if error.start:
                yield data[: error.start].decode()
            yield data[error.start]
            data = data[error.start + 1 :]
