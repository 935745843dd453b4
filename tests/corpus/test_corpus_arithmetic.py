"""Problems whose solutions are right, alike in every format."""

from __future__ import annotations

import re

import pytest

from warmstart.corpus import open_corpus
from warmstart.corpus.named.arithmetic import FORMATS, ArithmeticSettings, Problem, documents
from warmstart.foundation.errors import UserError


def solve(question: str) -> tuple[int, list[int]]:
    """What a reader makes of a question: the result and the changes."""
    total = int(re.search(r"has (\d+) ", question)[1])  # type: ignore[index]
    up = [
        (1 if verb in ("gets", "finds", "buys") else -1) * int(number)
        for verb, number in re.findall(r"(gets|finds|buys|loses|sells|gives away) (\d+)\.", question)
    ]
    return total + sum(up), up


def test_one_problem_in_words() -> None:
    one = Problem("Ann", "eggs", 3, (4, -7), ("finds", "sells"))
    assert one.question() == "Q: Ann has 3 eggs. Ann finds 4. Ann sells 7. How many eggs are there?"
    assert one.chain() == "A: 3 + 4 = 7. 7 - 7 = 0. The answer is 0."
    assert one.short() == "A: The answer is 0."


@pytest.mark.parametrize("form", FORMATS)
def test_every_solution_is_right(form: str) -> None:
    settings = ArithmeticSettings.parse({"documents": 200, "formats": [form], "exemplars": 3, "steps": 4})
    lengths = set()
    for document in documents(settings):
        lines = document.text.split("\n")
        assert len(lines) == (8 if form.startswith("in-context") else 2)
        for question, solution in zip(lines[::2], lines[1::2], strict=True):
            result, changes = solve(question)
            assert solution.endswith(f"The answer is {result}.")
            steps = re.findall(r"(\d+) ([+-]) (\d+) = (\d+)\.", solution)
            assert len(steps) == (len(changes) if form.endswith("chain") else 0)
            lengths.add(len(changes))
            for (left, sign, right, total), change in zip(steps, changes, strict=False):
                assert int(total) == int(left) + change == int(left) + int(f"{sign}{right}") >= 0
    assert lengths == {1, 2, 3, 4}


def test_a_problem_is_the_same_in_every_format() -> None:
    told = [
        [
            d.text.split("\n")[-2]
            for d in documents(ArithmeticSettings.parse({"documents": 20, "formats": [f]}))
        ]
        for f in FORMATS
    ]
    assert all(questions == told[0] for questions in told)
    mixed = [d.text for d in documents(ArithmeticSettings(documents=8))]
    for number, form in enumerate(FORMATS * 2):
        alone = list(documents(ArithmeticSettings.parse({"documents": 8, "formats": [form]})))
        assert mixed[number] == alone[number].text
        assert alone[number].metadata == {"format": form}


def test_held_out_problems_are_held_out_in_every_format() -> None:
    parts = []
    for form in FORMATS:
        corpus = open_corpus({"path": "arithmetic", "options": {"documents": 300, "formats": [form]}})
        parts.append([{d.id for d in corpus.documents(split)} for split in ("train", "valid", "test")])
    assert all(part == parts[0] for part in parts)
    train, valid, test = parts[0]
    assert valid and test and len(train) + len(valid) + len(test) == 300


def test_seeds_and_settings_tell_corpora_apart() -> None:
    marks = {
        open_corpus({"path": "arithmetic", "options": options}).fingerprint
        for options in ({}, {"seed": 1}, {"steps": 2}, {"formats": ["chain"]})
    }
    assert len(marks) == 4
    first, other = (next(iter(documents(ArithmeticSettings(seed=seed)))).text for seed in (0, 1))
    assert first != other
    shorter, longer = (list(documents(ArithmeticSettings(documents=n))) for n in (5, 9))
    assert shorter == longer[:5]
    with pytest.raises(UserError, match="formats"):
        ArithmeticSettings.parse({"formats": ["prose"]}, where="arithmetic")
