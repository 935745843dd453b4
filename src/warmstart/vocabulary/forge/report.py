"""What a tokenizer is worth on given text: fertility, bytes per token, round trips, reachability."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from warmstart.vocabulary.pieces import Decomposer
from warmstart.vocabulary.tokens import CanonicalToken, canonical_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class TokenizerReport(BaseModel):
    """Numbers about a tokenizer, measured on held-out text."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    vocab_size: int
    """Tokens, special ones included."""
    special_tokens: int
    """Special tokens among them."""
    bytes: int
    """UTF-8 bytes of the text measured."""
    tokens: int
    """Tokens of that text, without special ones."""
    bytes_per_token: float
    """UTF-8 bytes that one token covers."""
    fertility: float
    """Tokens per whitespace-separated word."""
    unknown_rate: float
    """Share of tokens that are the unknown token."""
    round_trip_failures: int
    """Texts that decode(encode(text)) changes, beyond the tokenizer's own normalisation and spacing."""
    texts: int
    """Texts measured."""
    unreachable: int
    """Tokens whose own text is never encoded as that one token."""
    unreachable_examples: list[str] = []
    """Up to ten of them."""
    unused: int
    """Tokens that the measured text does not contain; many for a short text."""


def measure(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], *, max_bytes: int | None = None
) -> TokenizerReport:
    """Measure a tokenizer on text.

    A text counts as a round-trip failure when its decoding differs from the text as the tokenizer's own
    normaliser sees it. Spaces at the start do not count (SentencePiece drops one); for WordPiece, which does
    not store spaces, none do.

    Args:
        tokenizer: Any fast tokenizer.
        texts: Text to measure on.
        max_bytes: Stop after this many UTF-8 bytes.
    """
    tokens = canonical_tokens(tokenizer)
    special = [token for token in tokens if token.role is not None and token.role != "unused"]
    decomposer = Decomposer(tokenizer, tokens)
    loose = decomposer.style in ("wordpiece", "plain")
    counts: Counter[int] = Counter()
    words = total = failures = number = 0
    for batch in batches(texts, max_bytes):
        for text, encoded in zip(batch, decomposer.encode_plain(batch)):
            counts.update(encoded.ids)
            words += len(text.split())
            total += len(text.encode("utf-8", "replace"))
            number += 1
            decoded = str(tokenizer.decode(encoded.ids, clean_up_tokenization_spaces=False))
            failures += _seen(decoded, tokenizer, loose) != _seen(text, tokenizer, loose)
    unreachable = unreachable_tokens(tokenizer, tokens)
    size = sum(counts.values())
    unknown = tokenizer.unk_token_id
    return TokenizerReport(
        vocab_size=len(tokens),
        special_tokens=len(special),
        bytes=total,
        tokens=size,
        bytes_per_token=total / max(1, size),
        fertility=size / max(1, words),
        unknown_rate=counts[unknown] / max(1, size) if unknown is not None else 0.0,
        round_trip_failures=failures,
        texts=number,
        unreachable=len(unreachable),
        unreachable_examples=[token.string for token in unreachable[:10]],
        unused=sum(1 for token in tokens if token.role is None and not counts[token.id]),
    )


def token_counts(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Counter[int]:
    """How often each id occurs in texts, without the special tokens around them."""
    decomposer = Decomposer(tokenizer, [])
    counts: Counter[int] = Counter()
    for batch in batches(texts, None):
        for encoded in decomposer.encode_plain(batch):
            counts.update(encoded.ids)
    return counts


def unreachable_tokens(
    tokenizer: PreTrainedTokenizerFast, tokens: Sequence[CanonicalToken], among: Collection[int] | None = None
) -> list[CanonicalToken]:
    """Tokens of text whose own text is not encoded as that one token.

    Args:
        tokenizer: Any fast tokenizer.
        tokens: Its canonical tokens.
        among: Look at these ids only.
    """
    looked_at = [t for t in tokens if t.role is None and t.is_text and (among is None or t.id in among)]
    pieces = Decomposer(tokenizer, tokens).batch(looked_at)
    return [token for token, found in zip(looked_at, pieces) if found != [token.id]]


def _seen(text: str, tokenizer: PreTrainedTokenizerFast, loose: bool) -> str:
    normaliser = tokenizer.backend_tokenizer.normalizer
    seen = normaliser.normalize_str(text) if normaliser else text
    seen = seen.replace("▁", " ")
    return "".join(seen.split()) if loose else seen.lstrip(" ")


def batches(texts: Iterable[str], max_bytes: int | None) -> Iterator[list[str]]:
    """Texts in lists of 256, up to the text that reaches `max_bytes`."""
    batch, seen = [], 0
    for text in texts:
        batch.append(text)
        seen += len(text.encode("utf-8", "replace"))
        if len(batch) == 256:
            yield batch
            batch = []
        if max_bytes is not None and seen >= max_bytes:
            break
    if batch:
        yield batch
