"""Texts with calls of tools: where in a text which tool is called, as one field beside the text."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from warmstart.corpus.corpus import Corpus, open_corpus
from warmstart.corpus.document import Document
from warmstart.corpus.named_set import is_named
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.splitting import SPLITS, Split
from warmstart.foundation.errors import UserError

FIELD = "calls"
"""Field of a record, and key of a document's metadata, that holds the calls."""


class Call(NamedTuple):
    """One call in a text, in which its result is written out.

    Attributes:
        start: First character of the result.
        stop: Place behind its last character.
        tool: Name of the tool.
    """

    start: int
    stop: int
    tool: str


def open_calls(settings: CorpusSettings) -> Corpus:
    """Open texts with calls: a named set such as `tool-calls`, or records with the fields text and calls.

    A line of a .jsonl file is `{"text": "Ann has 12 apples.", "calls": [[8, 10, "add"]]}`, with places in
    characters.
    """
    if is_named(settings.path) or FIELD in settings.metadata_fields:
        return open_corpus(settings)
    fields = (*settings.metadata_fields, FIELD)
    return open_corpus(settings.model_copy(update={"metadata_fields": fields}))


def calls_of(document: Document) -> list[Call]:
    """The calls of a document, in order.

    Raises:
        UserError: The field is missing or is no list of [start, stop, tool]; a tool without a name; calls
            that overlap, are empty or lie outside of the text.
    """
    given = document.metadata.get(FIELD)
    if not isinstance(given, list | tuple):
        raise _wrong(f"the field {FIELD!r} holds {_shown(given)}, not a list of calls", document)
    calls = sorted(_call(item, document) for item in given)
    end = 0
    for call in calls:
        if not 0 <= call.start < call.stop <= len(document.text):
            raise UserError(
                f"a call of {call.tool!r} at {call.start}–{call.stop} lies outside of the text of "
                f"{len(document.text)} characters",
                where=document.id,
                fix="count characters from 0, the last one excluded",
            )
        if call.start < end:
            raise UserError(
                f"the call of {call.tool!r} at {call.start}–{call.stop} overlaps the one before it",
                where=document.id,
                fix="mark each place once",
            )
        end = call.stop
    return calls


def tools_in(corpus: Corpus, split: Split = "all") -> Counter[str]:
    """How often each tool is called in a part of a corpus."""
    parts: tuple[Split, ...] = (split,)
    if split == "all" and set(corpus.source.splits) == set(SPLITS):
        parts = ("train", "valid", "test")  # reading of a limited train part then stops at its limit
    return Counter(call.tool for part in parts for d in corpus.documents(part) for call in calls_of(d))


def _call(item: Any, document: Document) -> Call:
    whole = isinstance(item, list | tuple) and len(item) == 3
    if not whole or not all(isinstance(place, int) and not isinstance(place, bool) for place in item[:2]):
        raise _wrong(f"{_shown(item)} is no call", document)
    start, stop, tool = item
    if not isinstance(tool, str) or not tool.strip():
        raise _wrong(f"the call {_shown(item)} names no tool", document)
    return Call(start, stop, tool)


def _wrong(what: str, document: Document) -> UserError:
    return UserError(what, where=document.id, fix='write calls as [[8, 10, "add"]]: start, stop, tool')


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
