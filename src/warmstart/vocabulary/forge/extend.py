"""Extending a tokenizer by tokens inside its model: from a text, or given.

From a text, after Yamaguchi et al., "How Can We Effectively Expand the Vocabulary of LLMs with 0.01GB of
Target Language Text?" (arXiv 2406.11477): a tokenizer of the same kind is trained on the text, its first
pieces that the tokenizer lacks are added, those that the text then never uses are replaced by the next ones
until all are used. Differences from the released code: the number of new tokens is the number asked for;
none is passed over because another one was removed while the list was walked through; new merges and scores
leave old text as it was where they can, see [`insert`][warmstart.vocabulary.forge.insert].

New ids follow the highest id of the tokenizer. A checkpoint may have more rows than its tokenizer has tokens;
new ids then meet rows that exist and that nothing was learned for. `warmstart transplant` makes all rows of
new tokens, whether or not such rows are there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.foundation.errors import UserError
from warmstart.foundation.progress import note
from warmstart.vocabulary.forge.auxiliary import Auxiliary, in_order, train_auxiliary
from warmstart.vocabulary.forge.change import ChangeReport, compare
from warmstart.vocabulary.forge.given import given_tokens
from warmstart.vocabulary.forge.insert import (
    Inserted,
    insert_bpe,
    insert_unigram,
    insert_wordpiece,
)
from warmstart.vocabulary.forge.report import token_counts
from warmstart.vocabulary.forge.saving import REPORT_BYTES, held_out, write
from warmstart.vocabulary.forge.state import changeable, opened, strings
from warmstart.vocabulary.forge.surfaces import named, written_all
from warmstart.vocabulary.forge.training import check_room
from warmstart.vocabulary.forge.whole_words import frequent_words
from warmstart.vocabulary.settings import Kind
from warmstart.vocabulary.settings_forge import ExtendSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Extension:
    """A tokenizer with new tokens.

    Attributes:
        tokenizer: The extended tokenizer.
        added: New tokens as the vocabulary writes them, in the order of their ids.
        helpers: Those of them that nobody asked for: characters and parts on the way to others.
        asked: How many were asked for.
        existing: Given tokens that were there already.
        unused: How many candidates were dropped because the text does not use them.
    """

    tokenizer: PreTrainedTokenizerFast
    added: list[str]
    helpers: list[str]
    asked: int
    existing: list[str] = field(default_factory=list)
    unused: int = 0


def extend(settings: ExtendSettings, out: Path, *, replace: bool = False) -> ChangeReport:
    """Extend a tokenizer and save it as a folder for `AutoTokenizer.from_pretrained`.

    Args:
        settings: What to add to what.
        out: Folder to create.
        replace: Whether an existing folder may be replaced.

    Returns:
        What the change does to the text and, where given, to old text; also in the folder's `warmstart.json`.

    Raises:
        UserError: For unusable input, or a vocabulary that does not fit into memory.
    """
    from warmstart.checkpoint import Lineage
    from warmstart.corpus import open_corpus
    from warmstart.evaluation.bits import limited
    from warmstart.vocabulary.opening import open_tokenizer
    from warmstart.vocabulary.transplant import tokenizer_digest

    check_room(settings.auxiliary_size + (settings.count or settings.words or 0), "extend")
    tokenizer = open_tokenizer(settings.source, trust_remote_code=settings.trust_remote_code)
    new = open_corpus(settings.corpus) if settings.corpus else None
    old = open_corpus(settings.source_corpus) if settings.source_corpus else None
    if new is not None and (settings.count or settings.words):
        texts = list(limited(new.texts("train"), settings.max_bytes))
        made = (extend_by_text if settings.count else extend_by_words)(tokenizer, texts, settings)
        if len(made.added) < made.asked:
            note(f"the text supports {len(made.added):,} new tokens; {made.asked:,} were asked for")
    else:
        made = extend_by_tokens(tokenizer, given_tokens(settings), settings)
    report = compare(
        tokenizer,
        made.tokenizer,
        new_text=held_out(new) if new else None,
        old_text=held_out(old) if old else None,
        max_bytes=REPORT_BYTES,
    )
    measured = {
        "asked": made.asked,
        "existing": len(made.existing),
        "helpers": len(made.helpers),
        "dropped_as_unused": made.unused,
        **report.summary(),
    }
    data = {c.name: c.fingerprint for c in (new, old) if c} | {"tokenizer": tokenizer_digest(tokenizer)}
    lineage = Lineage.of("extend", settings, data=data, measured=measured)
    write(made.tokenizer, out, lineage, change=report, replace=replace)
    return report


def extend_by_text(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], settings: ExtendSettings
) -> Extension:
    """Add the first `settings.count` pieces of a text that the tokenizer lacks and that the text then uses.

    Every new token occurs in the encodings of `texts` at least `min_uses` times.

    Args:
        tokenizer: Tokenizer to extend; it is not changed.
        texts: The text, read several times.
        settings: What to add, and how.

    Raises:
        UserError: For a tokenizer of another kind, or a text that supports no new token.
    """
    kind, state = changeable(tokenizer, settings.source)
    asked = settings.count or 0
    auxiliary = train_auxiliary(tokenizer, texts, settings, kind)
    start = max(tokenizer.get_vocab().values()) + 1
    words = _words(tokenizer.backend_tokenizer, texts)
    prefix = state["model"].get("continuing_subword_prefix") or "##"
    candidates = in_order(auxiliary.pieces, words or Counter(texts), kind, prefix)
    banned: set[str] = set()
    while True:
        made = _insert(kind, state, candidates, settings, asked, banned, auxiliary)
        unused = _unused(made, _quick_counts(made.state, words), start, settings.min_uses)
        if not unused:
            extended = opened(made.state, tokenizer)
            unused = _unused(made, token_counts(extended, texts), start, settings.min_uses)
        if not unused:
            break
        banned |= set(unused)
    if not made.added:
        raise UserError(
            "the text supports no new token: the tokenizer has every piece that its own training finds in it",
            where=settings.corpus.path if settings.corpus else None,
            fix="give more text, or text in another language or domain",
        )
    return Extension(extended, made.added, made.helpers, asked, unused=len(banned))


def extend_by_tokens(
    tokenizer: PreTrainedTokenizerFast, tokens: Iterable[str], settings: ExtendSettings
) -> Extension:
    """Add given words or phrases; each encodes to its own token afterwards.

    Args:
        tokenizer: Tokenizer to extend; it is not changed.
        tokens: Text of the new tokens.
        settings: How to add them.

    Raises:
        UserError: For a tokenizer of another kind, a text that the tokenizer would never see as a whole, a
            token that exists already (unless `existing: skip`), or one that the placement of merges or the
            scores leave unreachable.
    """
    kind, state = changeable(tokenizer, settings.source)
    prefix = state["model"].get("continuing_subword_prefix") or "##"
    pieces = written_all(
        tokenizer.backend_tokenizer, kind, prefix, tokens, settings.form, where=settings.source
    )
    known = strings(state).keys() | {token["content"] for token in state["added_tokens"]}
    existing = [piece for piece in pieces if piece in known]
    if existing and settings.existing == "error":
        raise UserError(
            f"{len(existing)} of the new tokens exist already: {named(existing)}",
            where=settings.source,
            fix="remove them, or set existing: skip",
        )
    fresh = [piece for piece in pieces if piece not in known]
    if not fresh:
        raise UserError("there is no new token to add", where=settings.source, fix="give others")
    return _with_all(tokenizer, kind, state, fresh, settings, len(pieces), existing)


def extend_by_words(
    tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], settings: ExtendSettings
) -> Extension:
    """Add the `settings.words` most frequent words of a text that are several pieces now.

    Args:
        tokenizer: Tokenizer to extend; it is not changed.
        texts: The text.
        settings: What to add, and how.

    Raises:
        UserError: For a tokenizer of another kind or one that does not cut text into words, a text without
            such words, or words that the placement of merges or the scores leave unreachable.
    """
    kind, state = changeable(tokenizer, settings.source)
    asked = settings.words or 0
    backend = tokenizer.backend_tokenizer
    words = frequent_words(backend, texts, asked, min_uses=settings.min_uses, where=settings.source)
    return _with_all(tokenizer, kind, state, words, settings, asked, [])


def _with_all(
    tokenizer: PreTrainedTokenizerFast,
    kind: Kind,
    state: dict[str, Any],
    fresh: list[str],
    settings: ExtendSettings,
    asked: int,
    existing: list[str],
) -> Extension:
    """The tokenizer with each of `fresh`, which must encode to itself."""
    made = _insert(kind, state, fresh, settings, None, (), None)
    extended = opened(made.state, tokenizer)
    ids = extended.get_vocab()
    lost = [piece for piece in fresh if _encoded(extended, piece) != [ids[piece]]]
    if lost:
        raise UserError(
            f"{len(lost)} new tokens would never be produced: {named(lost)}",
            where=settings.source,
            fix="set merges: last" if kind == "bpe" else "set scores: pieces",
        )
    return Extension(extended, made.added, made.helpers, asked, existing)


def _insert(
    kind: Kind,
    state: dict[str, Any],
    pieces: Iterable[str],
    settings: ExtendSettings,
    limit: int | None,
    banned: Iterable[str],
    auxiliary: Auxiliary | None,
) -> Inserted:
    barred = frozenset(banned)
    if kind == "bpe" and settings.merges == "whole" and state["pre_tokenizer"] is None:
        raise UserError(
            "the tokenizer does not cut text into words, so that no token can be a whole one",
            where=settings.source,
            fix="set merges: last",
        )
    if kind == "bpe":
        return insert_bpe(
            state, pieces, limit=limit, banned=barred, place=settings.merges, auxiliary=auxiliary
        )
    if kind == "unigram":
        options: dict[str, Any] = {"scores": settings.scores, "margin": settings.margin}
        return insert_unigram(state, pieces, limit=limit, banned=barred, auxiliary=auxiliary, **options)
    return insert_wordpiece(state, pieces, limit=limit, banned=barred)


def _words(backend: Any, texts: Iterable[str]) -> Counter[str] | None:
    """Distinct pre-tokenised words; None where texts are not cut, so that whole ones must be encoded."""
    from warmstart.vocabulary.forge.unigram import count_words

    return count_words(texts, backend) if backend.pre_tokenizer is not None else None


def _quick_counts(state: dict[str, Any], words: Counter[str] | None) -> Counter[int] | None:
    """Counts from distinct words: what the texts give, but for words beside special tokens."""
    from tokenizers import Tokenizer

    if words is None:
        return None
    model = Tokenizer.from_str(json.dumps(state)).model
    counts: Counter[int] = Counter()
    for word, count in words.items():
        for token in model.tokenize(word):
            counts[token.id] += count
    return counts


def _unused(made: Inserted, counts: Counter[int] | None, start: int, least: int) -> list[str]:
    if counts is None:
        return []
    return [piece for index, piece in enumerate(made.added, start) if counts[index] < least]


def _encoded(tokenizer: PreTrainedTokenizerFast, piece: str) -> list[int]:
    return [token.id for token in tokenizer.backend_tokenizer.model.tokenize(piece)]
