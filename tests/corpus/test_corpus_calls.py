"""Calls in texts: what a record may say, and the synthetic task made of words of a topic."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from warmstart.corpus import Document, open_corpus
from warmstart.corpus.calls import Call, calls_of, open_calls, tools_in
from warmstart.corpus.named.tool_calls import ToolCallsSettings
from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.errors import UserError

TEXT = "Ann has 12 apples."


def written(path: Path, *records: Any) -> CorpusSettings:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return CorpusSettings(path=str(path), valid_fraction=0, test_fraction=0)


def test_records_give_their_calls_in_order(tmp_path: Path) -> None:
    calls = [[11, 17, "name it"], [8, 10, "add"]]
    corpus = open_calls(
        written(tmp_path / "a.jsonl", {"text": TEXT, "calls": calls}, {"text": "No.", "calls": []})
    )
    first, second = corpus.documents("train")
    assert calls_of(first) == [Call(8, 10, "add"), Call(11, 17, "name it")] and calls_of(second) == []
    assert TEXT[8:10] == "12"
    assert tools_in(corpus) == {"add": 1, "name it": 1}


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([[0, 4, "a"], [3, 5, "b"]], "'b' at 3–5 overlaps the one before it"),
        ([[0, 4, "a"], [0, 4, "b"]], "'b' at 0–4 overlaps the one before it"),
        ([[15, 19, "a"]], "'a' at 15–19 lies outside of the text of 18 characters"),
        ([[-1, 4, "a"]], "'a' at -1–4 lies outside"),
        ([[4, 4, "a"]], "'a' at 4–4 lies outside"),
        ([[0, 4, " "]], r"\[0, 4, ' '\] names no tool"),
        ([[0, 4, 7]], r"\[0, 4, 7\] names no tool"),
        ([[0, 4]], r"\[0, 4\] is no call"),
        ([[0, True, "a"]], r"\[0, True, 'a'\] is no call"),
        ([[0, 1.5, "a"]], "is no call"),
        (["add"], "'add' is no call"),
        ("add", "holds 'add', not a list of calls"),
        (None, "holds None, not a list of calls"),
    ],
)
def test_a_wrong_call_is_one_sentence_with_its_line(tmp_path: Path, calls: Any, words: str) -> None:
    good = {"text": TEXT, "calls": [[8, 10, "add"]]}
    corpus = open_calls(written(tmp_path / "a.jsonl", good, {"text": TEXT, "calls": calls}))
    with pytest.raises(UserError, match=words) as caught:
        tools_in(corpus)
    assert "a.jsonl:2" in caught.value.sentence


def test_records_without_calls_are_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no field 'calls'"):
        tools_in(open_calls(written(tmp_path / "a.jsonl", {"text": TEXT})))
    with pytest.raises(UserError, match="holds None"):
        calls_of(Document(TEXT, "here"))


LINES = [
    "A small dog sees the red car.",
    "Dogs run.",
    "The CAT sat on a scarf.",
    "Nothing here, dogma aside.",
    "red red car",
    "cat and car",
    "A blue one.",
]
TOOLS = {"animal": "dog dogs cat", "color": "red blue", "vehicle": "car truck"}


def synthetic(folder: Path, **options: Any) -> CorpusSettings:
    folder.mkdir()
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("\n".join(LINES) + "\n")
    given = {"of": str(folder), "tools": TOOLS, "unseen": 1, **options}
    return CorpusSettings(path="tool-calls", unit="line", options=given)


def test_every_word_of_a_topic_is_a_call_and_hidden_tools_are_in_test_only(tmp_path: Path) -> None:
    settings = synthetic(tmp_path / "text")
    corpus = open_calls(settings)
    (hidden,) = ToolCallsSettings.parse(settings.options).hidden()
    words = {word: tool for tool, spelled in TOOLS.items() for word in spelled.split()}
    by_hand = {}
    for line in LINES:
        found = [m for m in re.finditer("[A-Za-z]+", line) if m[0].lower() in words]
        by_hand[line] = [Call(m.start(), m.end(), words[m[0].lower()]) for m in found]
    by_hand = {line: calls for line, calls in by_hand.items() if calls}
    assert {d.text: calls_of(d) for d in corpus.documents("test")} == by_hand
    for part in ("train", "valid"):
        kept = {line for line, calls in by_hand.items() if all(c.tool != hidden for c in calls)}
        assert {d.text for d in corpus.documents(part)} == kept  # type: ignore[arg-type]
        assert 0 < len(kept) < len(by_hand)
    assert set(tools_in(corpus, "train")) == set(TOOLS) - {hidden} and set(tools_in(corpus)) == set(TOOLS)


def test_hidden_tools_follow_from_names_alone_and_limits_count_texts_with_calls(tmp_path: Path) -> None:
    names = ToolCallsSettings(unseen=5).hidden()
    assert names < ToolCallsSettings(unseen=9).hidden() and len(names) == 5
    settings = synthetic(tmp_path / "text", unseen=0)
    assert len(list(open_calls(settings).documents("train"))) == 6
    few = open_calls(settings.model_copy(update={"max_documents": 3}))
    assert [d.text for d in few.documents("train")] == [LINES[i] for i in (0, 1, 2)]
    assert few.fingerprint != open_calls(settings).fingerprint
    assert open_calls(settings).fingerprint == open_corpus(settings).fingerprint
    other = synthetic(tmp_path / "other", tools={**TOOLS, "color": "red"}, unseen=0)
    assert open_calls(other).fingerprint != open_calls(settings).fingerprint


def test_our_topics_name_no_word_twice_and_never_themselves() -> None:
    topics = ToolCallsSettings().topics()
    words = [word for spelled in topics.values() for word in spelled.split()]
    assert 50 <= len(topics) <= 200 and len(set(words)) == len(words)
    assert not set(words) & set(topics), "a tool's own name would give it away"
    assert ToolCallsSettings.parse({"tools": topics, "unseen": 0}).topics() == topics


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tools": {"a": "red", "b": "blue RED"}}, "'red' belongs to 'a' and to 'b'"),
        ({"tools": {" ": "red"}}, "has no name or no words"),
        ({"tools": {"a": " "}}, "has no name or no words"),
        ({"tools": {"a": "red-hot"}}, "'red-hot' of the tool 'a' is no single word"),
        ({"tools": {"a": "red"}, "unseen": 1}, "leaves no tool"),
        ({"unsen": 1}, "did you mean 'unseen'"),
    ],
)
def test_wrong_topics(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        open_calls(CorpusSettings(path="tool-calls", options=options))
