"""Nested brackets: a language with structure and without meaning."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from warmstart.corpus.document import Document
from warmstart.corpus.named_set import NamedSet, datasets
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.source import Source
from warmstart.foundation.settings import Settings, digest

_VERSION = 1  # bump when the same settings give other text


class BracketSettings(Settings):
    """`options` of the corpus `brackets`."""

    documents: int = Field(default=10_000, ge=1)
    """Documents."""
    sentences: int = Field(default=8, ge=1)
    """Sentences of a document, one per line."""
    types: int = Field(default=500, ge=1)
    """Kinds of brackets."""
    exponent: float = Field(default=1.0, ge=0)
    """Zipf's law: the kind of rank r is drawn with a probability in proportion to 1 / r^exponent."""
    median_length: float = Field(default=20.0, ge=2)
    """Median length of a sentence in tokens; lengths are log-normal, as in text."""
    spread: float = Field(default=0.5, ge=0)
    """Standard deviation of the logarithm of the length."""
    deepening: float = Field(default=0.49, gt=0, lt=1)
    """Probability that a bracket is opened where one could be closed too."""
    seed: int = 0
    """Seed of the text."""


@datasets.register("brackets", title="MonoByte: A Pool of Monolingual Byte-level Language Models")
class Brackets(NamedSet):
    """Well-nested brackets of Zipf-distributed kinds: the control language of MonoByte.

    The kind of rank 1 opens as `(b` and closes as `b)`, further kinds are named `c`, `d`, … in letters;
    kinds and lengths carry no information, only the nesting does. A closing bracket is determined by what
    came before it, so a model that keeps a stack predicts at least half of the tokens. Options:
    [`BracketSettings`][warmstart.corpus.named.brackets.BracketSettings].

    MonoByte's own generator is not published; probability of opening, names and number of kinds are ours.
    """

    def corpora(self) -> list[str]:
        return [""]

    def open(self, member: str, settings: CorpusSettings) -> Source:
        chosen = BracketSettings.parse(settings.options, where="brackets")
        return Source(
            "brackets",
            lambda _split: documents(chosen),
            lambda: digest([_VERSION, chosen.digest()]),
            language=settings.language or "brackets",
            num_bytes=int(5 * chosen.documents * chosen.sentences * chosen.median_length),
        )


def documents(settings: BracketSettings) -> Iterator[Document]:
    """The documents, the same for equal settings; a shorter corpus is the beginning of a longer one."""
    weights = list(itertools.accumulate((rank + 1) ** -settings.exponent for rank in range(settings.types)))
    names = [name_of(rank) for rank in range(settings.types)]
    for number in range(settings.documents):
        rng = random.Random(f"{settings.seed} {number}")
        lines = (" ".join(sentence(settings, names, weights, rng)) for _ in range(settings.sentences))
        yield Document("\n".join(lines), f"brackets:{number}", key=f"{settings.seed} {number}")


def sentence(
    settings: BracketSettings, names: list[str], weights: list[float], rng: random.Random
) -> Iterator[str]:
    """Tokens of one sentence; each bracket that is opened is closed.

    Args:
        settings: Lengths and depth.
        names: Name of each kind.
        weights: Cumulative weight of each kind.
        rng: Random generator of the document.
    """
    pairs = max(1, round(rng.lognormvariate(0, settings.spread) * settings.median_length / 2))
    stack: list[str] = []
    while pairs or stack:
        if pairs and (not stack or rng.random() < settings.deepening):
            stack.append(rng.choices(names, cum_weights=weights)[0])
            pairs -= 1
            yield f"({stack[-1]}"
        else:
            yield f"{stack.pop()})"


def name_of(rank: int) -> str:
    """Name of a kind: the rank, counted from 1, written in base 26 with the digits a to z.

    >>> name_of(0), name_of(25)
    ('b', 'ba')
    """
    number, letters = rank + 1, ""
    while number:
        number, digit = divmod(number, 26)
        letters = chr(97 + digit) + letters
    return letters


def is_nested(tokens: list[str]) -> bool:
    """Whether every bracket is closed by its own kind, in the right order."""
    stack: list[Any] = []
    for token in tokens:
        if token.startswith("("):
            stack.append(token[1:])
        elif not stack or f"{stack.pop()})" != token:
            return False
    return not stack
