"""Sums in words and their solutions: a world in which every answer and every step is known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal, NamedTuple

from pydantic import Field

from warmstart.corpus.document import Document
from warmstart.corpus.named_set import NamedSet, datasets
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.source import Source
from warmstart.foundation.settings import Settings, digest

_VERSION = 1  # bump when the same settings give other text
_VERBS = {1: ("gets", "finds", "buys"), -1: ("loses", "sells", "gives away")}
_NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hana")
_THINGS = ("apples", "books", "coins", "cups", "eggs", "stamps")

Format = Literal["chain", "answer", "in-context chain", "in-context answer"]
FORMATS: tuple[Format, ...] = ("chain", "answer", "in-context chain", "in-context answer")


class ArithmeticSettings(Settings):
    """`options` of the corpus `arithmetic`."""

    documents: int = Field(default=20_000, ge=1)
    """Documents."""
    formats: list[Format] = Field(default=list(FORMATS), min_length=1)
    """How a problem is told: its solution step by step (`chain`) or the result alone (`answer`), without or
    behind solved problems of the same kind (`in-context …`). Each document has one, in turn."""
    exemplars: int = Field(default=4, ge=1)
    """Solved problems before the one in question, for the formats `in-context …`."""
    steps: int = Field(default=3, ge=1)
    """Additions and subtractions of a problem at most; each has at least one."""
    largest: int = Field(default=20, ge=1)
    """Largest number that is added or taken away, and to begin with."""
    seed: int = 0
    """Seed of the text."""


class Problem(NamedTuple):
    """Somebody has some things, and gets and loses some."""

    name: str
    thing: str
    start: int
    changes: tuple[int, ...]
    verbs: tuple[str, ...]

    @property
    def answer(self) -> int:
        """How many there are in the end."""
        return self.start + sum(self.changes)

    def question(self) -> str:
        """The problem in words, on one line."""
        told = [f"{self.name} has {self.start} {self.thing}."]
        for change, verb in zip(self.changes, self.verbs, strict=True):
            told.append(f"{self.name} {verb} {abs(change)}.")
        return f"Q: {' '.join(told)} How many {self.thing} are there?"

    def chain(self) -> str:
        """Every step and the result, on one line."""
        total, told = self.start, []
        for change in self.changes:
            told.append(f"{total} {'+' if change >= 0 else '-'} {abs(change)} = {total + change}.")
            total += change
        return f"A: {' '.join(told)} The answer is {total}."

    def short(self) -> str:
        """The result alone, on one line."""
        return f"A: The answer is {self.answer}."


@datasets.register(
    "arithmetic",
    title="Specializing Smaller Language Models towards Multi-Step Reasoning",
    arxiv="2301.12726",
)
class Arithmetic(NamedSet):
    """Problems of several additions and subtractions, with solutions that are right by construction.

    Options: [`ArithmeticSettings`][warmstart.corpus.named.arithmetic.ArithmeticSettings]. The four formats
    are those of the source: with or without a chain of steps, with or without solved problems in front. There
    a large model writes the chains for problems of GSM8K, and those with a wrong answer are dropped; here a
    program writes them. Numbers never fall below zero. Problem i is the same in every format, and a problem
    is held out in all of them or in none; exemplars are problems of the same part.
    """

    def corpora(self) -> list[str]:
        return [""]

    def open(self, member: str, settings: CorpusSettings) -> Source:
        chosen = ArithmeticSettings.parse(settings.options, where="arithmetic")
        return Source(
            "arithmetic",
            lambda _split: documents(chosen),
            lambda: digest([_VERSION, chosen.digest()]),
            language=settings.language or "eng",
            num_bytes=200 * chosen.documents,
        )


def documents(settings: ArithmeticSettings) -> Iterator[Document]:
    """The documents, the same for equal settings; a shorter corpus is the beginning of a longer one.

    Each has its `format` among its metadata.
    """
    for number in range(settings.documents):
        form = settings.formats[number % len(settings.formats)]
        told, key = text(settings, number, form), f"{settings.seed} {number}"
        yield Document(told, f"arithmetic:{number}", {"format": form}, key)


def text(settings: ArithmeticSettings, number: int, form: Format) -> str:
    """Problem `number` in a format, behind its exemplars where it has any."""
    shown = [problem(settings, f"{settings.seed} {number}")]
    if form.startswith("in-context"):
        kept = range(settings.exemplars)
        shown = [*(problem(settings, f"{settings.seed} {number} {i}") for i in kept), *shown]
    solved = (p.chain() if form.endswith("chain") else p.short() for p in shown)
    return "\n".join(f"{p.question()}\n{solution}" for p, solution in zip(shown, solved, strict=True))


def problem(settings: ArithmeticSettings, key: str) -> Problem:
    """The problem of a key, such as `"0 17"`."""
    rng = random.Random(f"{settings.largest} {settings.steps} {key}")
    start = total = rng.randint(0, settings.largest)
    changes: list[int] = []
    for _ in range(rng.randint(1, settings.steps)):
        size = rng.randint(1, settings.largest)
        changes.append(-size if size <= total and rng.random() < 0.5 else size)
        total += changes[-1]
    verbs = tuple(rng.choice(_VERBS[1 if change > 0 else -1]) for change in changes)
    return Problem(rng.choice(_NAMES), rng.choice(_THINGS), start, tuple(changes), verbs)
