"""Tool calls in image captions: words of a topic are results of the tool that is named like the topic."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Self

import yaml
from pydantic import Field, model_validator

from warmstart.corpus.calls import FIELD
from warmstart.corpus.document import Document
from warmstart.corpus.named_set import NamedSet, datasets
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.source import Source
from warmstart.corpus.splitting import SPLITS
from warmstart.foundation.settings import Settings, digest

_VERSION = 1  # bump when the same settings give other calls
_TOPICS = Path(__file__).with_name("tool_topics.yaml")
_WORD = re.compile(r"\w+")


class ToolCallsSettings(Settings):
    """`options` of the corpus `tool-calls`."""

    of: str = "multi30k/en"
    """Text in which words become calls: a named set or a path."""
    tools: dict[str, str] = {}
    """Name of each tool -> the words, separated by spaces, in whose place it is called; case does not matter.
    Our 67 topics of image captions when empty."""
    unseen: int = Field(default=16, ge=0)
    """Tools, drawn by the hash of their names, that are called in the `test` part only."""

    @model_validator(mode="after")
    def _each_word_once(self) -> Self:
        owner: dict[str, str] = {}
        for tool, words in self.tools.items():
            if not tool.strip() or not words.split():
                raise ValueError(f"the tool {tool!r} has no name or no words")
            for word in words.lower().split():
                if not _WORD.fullmatch(word):
                    raise ValueError(f"{word!r} of the tool {tool!r} is no single word")
                if owner.setdefault(word, tool) != tool:
                    raise ValueError(f"the word {word!r} belongs to {owner[word]!r} and to {tool!r}")
        if self.unseen >= len(self.topics()):
            raise ValueError("`unseen` leaves no tool to train")
        return self

    def topics(self) -> dict[str, str]:
        """Name of each tool -> its words."""
        return self.tools or dict(_own_topics())

    def hidden(self) -> set[str]:
        """The tools that are called in the `test` part only."""
        drawn = sorted(self.topics(), key=lambda n: blake2b(n.encode(), digest_size=8).digest())
        return set(drawn[: self.unseen])


@datasets.register("tool-calls", title="Words of a topic as results of a tool named like the topic")
class ToolCalls(NamedSet):
    """English captions in which each word of a topic is the result of a call: a synthetic task for tools.

    In "A man plays a guitar." the tool `instrument` is called where "guitar" stands: the text before it has
    to tell that a call is due and which. The name of a tool never stands for itself, so that no model knows
    the tool from its own word. All calls of a text are marked, and texts without any are left out. Some
    tools are called in the test part only, whose calls a model that was trained on the others can make from
    the names alone; texts with such a call are left out of the other parts.

    Options: [`ToolCallsSettings`][warmstart.corpus.named.tool_calls.ToolCallsSettings].
    """

    def corpora(self) -> list[str]:
        return [""]

    def open(self, member: str, settings: CorpusSettings) -> Source:
        from warmstart.corpus.corpus import open_corpus

        chosen = ToolCallsSettings.parse(settings.options, where="tool-calls")
        inner: dict[str, object] = {"path": chosen.of, "also": (), "options": {}, "split": None}
        unlimited = {
            "metadata_fields": (),
            "max_documents": None,
            "max_bytes": None,
            "max_held_out_bytes": None,
        }
        plain = open_corpus(settings.model_copy(update=inner | unlimited))
        find, hidden = Finder(chosen.topics()), chosen.hidden()

        def read(split: str | None) -> Iterator[Document]:
            for part, document in plain.divided(split or "all"):  # type: ignore[arg-type]
                calls = find(document.text)
                if calls and (part == "test" or not any(tool in hidden for _, _, tool in calls)):
                    held = document.metadata | {FIELD: calls, "split": part}
                    yield replace(document, metadata=held)

        return Source(
            "tool-calls" if chosen.of == "multi30k/en" else f"tool-calls/{plain.name}",
            read,
            lambda: digest([_VERSION, chosen.digest(), chosen.topics(), plain.fingerprint]),
            SPLITS,
            language=settings.language or plain.language,
            num_bytes=plain.source.num_bytes,
        )


class Finder:
    """Finds the words of topics in a text.

    Args:
        topics: Name of each tool -> its words, separated by spaces.
    """

    def __init__(self, topics: dict[str, str]) -> None:
        self.tool_of = {word: tool for tool, words in topics.items() for word in words.lower().split()}

    def __call__(self, text: str) -> list[list[int | str]]:
        """`[start, stop, tool]` of each whole word that belongs to a topic."""
        known = self.tool_of
        found = ((m.start(), m.end(), known.get(m[0].lower())) for m in _WORD.finditer(text))
        return [[start, stop, tool] for start, stop, tool in found if tool is not None]


@cache
def _own_topics() -> dict[str, str]:
    found: dict[str, str] = yaml.safe_load(_TOPICS.read_text(encoding="utf-8"))
    return found
