"""Labels of Python tokens and of words: exact, and none where it cannot be known."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from warmstart.corpus import probing
from warmstart.corpus.document import Document
from warmstart.corpus.labelled import Labelled
from warmstart.corpus.probing import python_tokens, tokens_of, words_of

CODE = """
def area(r, *, scale=2.5):
    if r is None:
        return "none" + 'x'
    return scale*r ** 2
"""


def test_each_token_has_the_kind_that_python_gives_it() -> None:
    assert list(tokens_of(CODE)) == [
        ("def", "keyword"), (" area", "name"), ("(", "operator"), ("r", "name"), (",", "operator"),
        (" *", "operator"), (",", "operator"), (" scale", "name"), ("=", "operator"), ("2.5", "number"),
        (")", "operator"), (":", "operator"),
        (" if", "keyword"), (" r", "name"), (" is", "keyword"), (" None", "keyword"), (":", "operator"),
        (" return", "keyword"), (' "none"', "string"), (" +", "operator"), (" 'x'", "string"),
        (" return", "keyword"), (" scale", "name"), ("*", "operator"), ("r", "name"), (" **", "operator"),
        (" 2", "number"),
    ]  # fmt: skip


def test_code_that_ends_too_soon_gives_what_came_before() -> None:
    assert list(tokens_of("x = (1,\n")) == [
        ("x", "name"), (" =", "operator"), (" (", "operator"), ("1", "number"), (",", "operator"),
    ]  # fmt: skip


def test_modules_come_by_hash_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = [Document(f"value = {n} + {n}", f"m{n}.py") for n in range(6)]
    library = SimpleNamespace(documents=lambda split: iter(modules))
    monkeypatch.setattr("warmstart.corpus.corpus.open_corpus", lambda settings: library)
    texts, labels = python_tokens()
    assert texts[::5] == ["value"] * 6 and labels[:5] == ["name", "operator", "number", "operator", "number"]
    order = [text.strip() for text in texts[2::5]]
    assert sorted(order) == list("012345") != order
    modules.reverse()
    assert python_tokens().texts == texts
    monkeypatch.setattr(probing, "_READ", 7)
    assert python_tokens() == (texts[:7], labels[:7])


def test_a_word_has_a_label_where_only_one_is_possible() -> None:
    given = Labelled(
        ["The man, the Mann!", "der Mann der", "a man: the naïve", "naïve 123"], ["en", "de", "en", "en"]
    )
    texts, labels = words_of(given)
    assert dict(zip(texts, labels, strict=True)) == {" the": "en", " man": "en", " der": "de", " naïve": "en"}
