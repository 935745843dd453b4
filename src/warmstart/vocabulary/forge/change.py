"""What a change of tokenizer does to text: length, losses, and how much is cut in another way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from warmstart.vocabulary.forge.report import TokenizerReport, batches, measure, unreachable_tokens
from warmstart.vocabulary.pieces import Decomposer
from warmstart.vocabulary.tokens import CanonicalToken, canonical_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

EXAMPLES = 10


class TextChange(BaseModel):
    """One text under the tokenizer before and after the change."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    before: TokenizerReport
    """Numbers of the tokenizer before."""
    after: TokenizerReport
    """Numbers of the tokenizer after."""
    documents_changed: float
    """Share of the documents that are cut in another way."""
    words_changed: float
    """Share of the whitespace-separated words that are; each is looked at by itself, behind a space."""
    examples: list[str] = []
    """The most frequent of these words, with both cuts."""


class ChangeReport(BaseModel):
    """What a change did, measured on text for which it was made and on text that it should leave alone."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    tokens_before: int
    """Ids of the tokenizer before, special tokens included."""
    tokens_after: int
    """Ids of the tokenizer after."""
    added: int
    """Tokens that only the tokenizer after has."""
    removed: int
    """Tokens that only the tokenizer before has."""
    unreachable_new: int
    """Added tokens whose own text is not encoded as that one token."""
    unreachable_new_examples: list[str] = []
    """Up to ten of them."""
    new_text: TextChange | None = None
    """The text for which the change was made."""
    old_text: TextChange | None = None
    """The text for which the tokenizer was made."""

    def summary(self) -> dict[str, Any]:
        """The numbers that matter, without nesting."""
        found: dict[str, Any] = {
            "tokens_before": self.tokens_before,
            "tokens_after": self.tokens_after,
            "added": self.added,
            "removed": self.removed,
            "unreachable_new": self.unreachable_new,
        }
        for name, text in (("", self.new_text), ("old_text_", self.old_text)):
            if text is not None:
                found |= {
                    f"{name}fertility_before": round(text.before.fertility, 4),
                    f"{name}fertility": round(text.after.fertility, 4),
                    f"{name}bytes_per_token_before": round(text.before.bytes_per_token, 4),
                    f"{name}bytes_per_token": round(text.after.bytes_per_token, 4),
                    f"{name}round_trip_failures_before": text.before.round_trip_failures,
                    f"{name}round_trip_failures": text.after.round_trip_failures,
                    f"{name}words_changed": round(text.words_changed, 4),
                    f"{name}documents_changed": round(text.documents_changed, 4),
                }
        return found


def compare(
    before: PreTrainedTokenizerFast,
    after: PreTrainedTokenizerFast,
    *,
    new_text: Iterable[str] | None = None,
    old_text: Iterable[str] | None = None,
    max_bytes: int | None = None,
) -> ChangeReport:
    """Describe a change of tokenizer.

    Args:
        before: Tokenizer before the change.
        after: Tokenizer after it.
        new_text: Text for which the change was made; what is read of it is held in memory.
        old_text: Text for which the tokenizer was made, likewise.
        max_bytes: UTF-8 bytes read of each text.
    """
    old, new = canonical_tokens(before), canonical_tokens(after)
    known, kept = {_identity(token) for token in old}, {_identity(token) for token in new}
    fresh = {token.id for token in new if token.role is None and _identity(token) not in known}
    unreachable = unreachable_tokens(after, new, among=fresh)
    texts = [
        None if text is None else text_change(before, after, text, max_bytes=max_bytes)
        for text in (new_text, old_text)
    ]
    return ChangeReport(
        tokens_before=len(old),
        tokens_after=len(new),
        added=len(fresh),
        removed=sum(1 for token in old if token.role is None and _identity(token) not in kept),
        unreachable_new=len(unreachable),
        unreachable_new_examples=[token.string for token in unreachable[:10]],
        new_text=texts[0],
        old_text=texts[1],
    )


def text_change(
    before: PreTrainedTokenizerFast,
    after: PreTrainedTokenizerFast,
    texts: Iterable[str],
    *,
    max_bytes: int | None = None,
) -> TextChange:
    """Measure one text under two tokenizers, of the same kind or of different ones.

    Two cuts are equal when their tokens stand for the same bytes with the same spaces in front; whether the
    first token of a document has a space does not count.
    """
    held = [text for batch in batches(texts, max_bytes) for text in batch]
    sides = [_Side(before), _Side(after)]
    changed = 0
    for batch in batches(held, None):
        cuts = [side.documents(batch) for side in sides]
        changed += sum(a != b for a, b in zip(*cuts))
    words = Counter(word for text in held for word in text.split())
    ordered = sorted(words, key=lambda word: (-words[word], word))
    other = 0
    examples: list[str] = []
    for start in range(0, len(ordered), 10_000):
        part = ordered[start : start + 10_000]
        for word, *pieces in zip(part, *(side.words(part) for side in sides)):
            if sides[0].cut(pieces[0]) != sides[1].cut(pieces[1]):
                other += words[word]
                if len(examples) < EXAMPLES:
                    shown = [" ".join(side.tokens[i].string for i in ids) for side, ids in zip(sides, pieces)]
                    examples.append(f"{word}: {shown[0]} → {shown[1]}")
    return TextChange(
        before=measure(before, held),
        after=measure(after, held),
        documents_changed=changed / max(1, len(held)),
        words_changed=other / max(1, words.total()),
        examples=examples,
    )


class _Side:
    """One of the two tokenizers."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokens = canonical_tokens(tokenizer)
        self._decomposer = Decomposer(tokenizer, self.tokens)

    def words(self, words: Sequence[str]) -> list[list[int]]:
        """Ids of each word behind a space."""
        return self._decomposer.batch(
            [CanonicalToken(0, word.encode("utf-8", "replace"), True, False) for word in words]
        )

    def cut(self, ids: Sequence[int]) -> list[tuple[Any, ...]]:
        return [_key(self.tokens[index]) for index in ids]

    def documents(self, texts: Sequence[str]) -> list[list[tuple[Any, ...]]]:
        """Keys of each text's tokens, the first one without its space."""
        found = []
        for encoded in self._decomposer.encode_plain(texts):
            keys = self.cut(encoded.ids)
            if keys and keys[0] == (b"", True, None):
                keys = keys[1:]
            elif keys:
                keys[0] = (keys[0][0], False, *keys[0][2:])
            found.append(keys)
        return found


def _identity(token: CanonicalToken) -> tuple[Any, ...]:
    """What makes two tokens the same token: `##a`, `a` and the byte piece of an a are three."""
    return (*_key(token), token.continuation, token.byte)


def _key(token: CanonicalToken) -> tuple[Any, ...]:
    """What makes two tokens cut text in the same way; special ones are compared by string and role."""
    return (*token.key, None) if token.role is None else (token.string, False, token.role)
