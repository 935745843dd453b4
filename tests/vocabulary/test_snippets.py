"""Two cuts of one text against brute force, and windows of them around new tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vocab_extended import extended
from vocab_tokenizers import STYLES, plain, sentences

from warmstart.corpus import CorpusSettings, open_corpus
from warmstart.foundation.errors import UserError
from warmstart.vocabulary.aligning import Aligned, Merging, Offsets, Trie, align, fold_ids, own_ids
from warmstart.vocabulary.map import VocabMap
from warmstart.vocabulary.snippets import Miner, mine_snippets


def merging() -> tuple[VocabMap, Merging]:
    source, target = extended()
    vocab = VocabMap.build(source, target)
    return vocab, Merging(vocab, source, vocab.new)


def naive_hits(ids: list[int], phrases: dict[tuple[int, ...], int]) -> set[tuple[int, int, int]]:
    return {
        (start, len(phrase), value)
        for phrase, value in phrases.items()
        for start in range(len(ids) - len(phrase) + 1)
        if tuple(ids[start : start + len(phrase)]) == phrase
    }


def naive_merge(ids: list[int], phrases: dict[tuple[int, ...], int]) -> list[tuple[int, int]]:
    """(token, end) of the merged cut: longest first, then leftmost."""
    taken: dict[int, tuple[int, int]] = {}
    free = [True] * len(ids)
    for start, length, value in sorted(naive_hits(ids, phrases), key=lambda hit: (-hit[1], hit[0])):
        if all(free[start : start + length]):
            free[start : start + length] = [False] * length
            taken[start] = (value, start + length)
    found, place = [], 0
    while place < len(ids):
        found.append(taken.get(place, (ids[place], place + 1)))
        place = found[-1][1]
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_trie_finds_what_brute_force_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    phrases = {tuple(rng.integers(0, 4, rng.integers(1, 6)).tolist()): 100 + number for number in range(12)}
    ids = rng.integers(-1, 5, 400)
    found = {tuple(map(int, hit)) for hit in zip(*Trie(phrases).find(ids))}
    assert len(found) > 20 and found == naive_hits(ids.tolist(), phrases)
    assert [len(part) for part in Trie({}).find(ids)] == [0, 0, 0]


def test_merging_equals_brute_force() -> None:
    """Overlapping phrases over a small alphabet: longest first, then leftmost."""
    vocab, way = merging()
    rng = np.random.default_rng(0)
    letters = np.unique([i for phrase in way.phrases for i in phrase])
    rows = [rng.choice(letters, 60).tolist() for _ in range(30)]
    rows += [list(a + b[1:]) for a in way.phrases for b in way.phrases]
    text = way.ids(rows)
    source_at, target_at = 0, 0
    for row in rows:
        expected = naive_merge(row, way.phrases)
        part = slice(target_at, target_at + len(expected))
        assert text.target[part].tolist() == [token for token, _ in expected]
        assert (text.ends[part] - source_at).tolist() == [end for _, end in expected]
        source_at, target_at = source_at + len(row) + 1, target_at + len(expected) + 1
        assert text.target[target_at - 1] == text.source[source_at - 1] == text.ends[target_at - 1] == -1
    assert (text.target >= len(vocab.source)).sum() > 50


def test_merged_text_is_the_same_text() -> None:
    source, target = extended()
    _, way = merging()
    texts = sentences()[:50]
    aligned = way.texts(texts)
    documents = np.split(aligned.target, np.flatnonzero(aligned.target < 0) + 1)[:-1]
    for text, ids in zip(texts, documents, strict=True):
        assert target.decode(ids[:-1]) == text == source.decode(source(text)["input_ids"])
    assert np.isin(aligned.target, list(way.phrases.values())).sum() > 20


@pytest.mark.parametrize(
    "pair", [("bpe", "gpt2"), ("bpe", "unigram"), ("llama", "bpe"), ("unigram", "llama")]
)
def test_offsets_agree_exactly_where_prefixes_do(pair: tuple[str, str]) -> None:
    """Cuts found = numbers of characters before which both tokenizers end a token, counted by hand."""
    one, two = (STYLES[name](seed) for name, seed in zip(pair, (0, 1), strict=True))
    spaces = ["a  cat sat"] if pair == ("bpe", "gpt2") else []  # others write two spaces as one
    texts = [*spaces, *sentences(2)[:30], "", "naïve «ёж» — 🙂 end"]
    aligned = Offsets(one, two).texts(texts)
    assert (aligned.source < 0).sum() == (aligned.target < 0).sum() == len(texts)
    source = np.split(np.arange(len(aligned.source)), np.flatnonzero(aligned.source < 0) + 1)[:-1]
    target = np.split(np.arange(len(aligned.target)), np.flatnonzero(aligned.target < 0) + 1)[:-1]
    shared = 0
    for text, s, t in zip(texts, source, target, strict=True):
        if not text.isascii():
            continue  # bytes inside characters have no text of their own
        ours, theirs = (
            [
                len("".join(k.convert_ids_to_tokens(ids[: i + 1].tolist())).lstrip("▁Ġ "))
                for i in range(len(ids))
            ]
            for k, ids in ((one, aligned.source[s[:-1]]), (two, aligned.target[t[:-1]]))
        )
        for place, length in zip(t[:-1], theirs, strict=True):
            end = aligned.ends[place]
            if end < 0:
                assert length not in ours
            else:
                assert ours[end - s[0] - 1] == length
                shared += 1
    assert shared > 100


def test_cuts_around_a_space_differ() -> None:
    """Trimmed offsets would call `a|␣b` and `a␣|b` the same cut."""
    source = plain("bpe", 420)
    text = "the   the"
    aligned = Offsets(source, source).texts([text])
    assert aligned.ends[:-1].tolist() == list(range(1, len(aligned.source)))


def test_borders_name_equal_text() -> None:
    _, way = merging()
    source, target = extended()
    aligned = way.texts(sentences()[:5])
    start = (aligned.source < 0).cumsum()
    s_at, t_at = aligned.borders()
    for s, t in zip(s_at.tolist(), t_at.tolist(), strict=True):
        ours = [i for i in aligned.source[:s].tolist() if i >= 0]
        theirs = [i for i in aligned.target[:t].tolist() if i >= 0]
        assert source.decode(ours) == target.decode(theirs)
    assert start[-1] == 5


def test_alignment_is_chosen_by_what_the_target_holds() -> None:
    source, target = extended()
    vocab = VocabMap.build(source, target)
    text = [token.id for token in vocab.source if token.role is None]
    assert np.array_equal(own_ids(vocab)[text], text)
    assert isinstance(align(vocab, source, target, vocab.new), Merging)
    other = plain("unigram", 300)
    foreign = VocabMap.build(source, other)
    assert isinstance(align(foreign, source, other, foreign.new), Offsets)
    with pytest.raises(UserError, match="alignment: offsets"):
        align(foreign, source, other, foreign.new, "merge")


def test_folding_is_own_id_or_first_piece() -> None:
    source, target = extended()
    vocab = VocabMap.build(source, target, target_size=len(target) + 3)
    fold = fold_ids(vocab)
    assert len(fold) == len(target) + 3 and (fold[len(target) :] == -1).all()
    for token in vocab.target:
        if token.role is not None:
            assert fold[token.id] == -1
        elif token.id in vocab.new:
            assert fold[token.id] == source(token.surface)["input_ids"][0]
        else:
            assert fold[token.id] == token.id


def corpus(tmp_path: Path, texts: Any = None) -> Any:
    file = tmp_path / "text.txt"
    file.write_text("\n".join(texts or sentences()))
    return open_corpus(CorpusSettings(path=str(file), unit="line"))


def check_rows(
    rows: np.ndarray, tokens: np.ndarray, source: Any, target: Any, length: int, start: Any
) -> None:
    for row, token in zip(rows, tokens, strict=True):
        ours, theirs = row[0][row[0] >= 0], row[1][row[1] >= 0]
        assert row.shape == (3, length) and (row[0][len(ours) :] == -1).all()
        assert token in theirs
        ends = row[2][: len(theirs)]
        assert (row[2][len(theirs) :] == -1).all() and ends[-1] == len(ours)
        head = int(start is not None)
        if head:
            assert (ours[0], theirs[0]) == start and ends[0] == 1
        for i in range(head, len(theirs)):
            if ends[i]:
                assert source.decode(ours[head : ends[i]]) == target.decode(theirs[head : i + 1])


@pytest.mark.parametrize("start", [None, (0, 0)])
def test_snippets_are_windows_of_the_text(tmp_path: Path, start: Any) -> None:
    source, target = extended()
    vocab, way = merging()
    found = mine_snippets(corpus(tmp_path), way, vocab.new, per_token=7, length=16, start=start)
    check_rows(found.rows, found.tokens, source, target, 16, start)
    counts = found.counts(vocab.new)
    aligned = way.texts([document.text for document in corpus(tmp_path).documents("train")])
    occurrences = np.array([(aligned.target == index).sum() for index in vocab.new])
    assert (counts[occurrences >= 7] == 7).all() and (occurrences >= 7).sum() >= 3
    assert (counts <= occurrences).all()
    full = (found.rows[:, 0] >= 0).sum(1)
    assert full.max() == 16 and np.median(full) >= 12
    again = mine_snippets(corpus(tmp_path), way, vocab.new, per_token=7, length=16, start=start)
    assert np.array_equal(again.rows, found.rows) and again.fingerprint == found.fingerprint
    other = mine_snippets(corpus(tmp_path), way, vocab.new, per_token=6, length=16, start=start)
    assert other.fingerprint != found.fingerprint and len(other) < len(found)


def test_the_new_token_stands_in_the_middle(tmp_path: Path) -> None:
    vocab, way = merging()
    texts = [" ".join(sentences()[i : i + 20]) for i in range(0, 200, 20)]
    found = mine_snippets(corpus(tmp_path, texts), way, vocab.new, per_token=5, length=21)
    inner = []
    for row, token in zip(found.rows, found.tokens, strict=True):
        if (row[0] >= 0).sum() >= 19:
            ends = np.concatenate([[0], row[2][row[1] >= 0]])
            middles = [(ends[i] + ends[i + 1]) / 2 for i in np.flatnonzero(row[1][row[1] >= 0] == token)]
            inner.append(min(abs(middle - 10.5) for middle in middles))
    assert len(inner) > 10 and np.mean(np.array(inner) <= 2.5) > 0.7


def test_snippets_from_offsets(tmp_path: Path) -> None:
    """A wholly different vocabulary: windows begin and end where both cuts agree."""
    source, target = plain("bpe", 420), plain("bpe", 360, 1)
    vocab = VocabMap.build(source, target)
    found = mine_snippets(corpus(tmp_path), Offsets(source, target), vocab.new, per_token=3, length=24)
    assert len(found) > 20
    check_rows(found.rows, found.tokens, source, target, 24, None)


def test_rare_tokens_get_what_there_is(tmp_path: Path) -> None:
    vocab, way = merging()
    _, target = extended()
    word = target.decode([int(vocab.new[0])])
    found = mine_snippets(corpus(tmp_path, [f"one{word} here", "nothing"]), way, vocab.new, per_token=9)
    assert found.counts(vocab.new).tolist()[0] == 1
    with pytest.raises(UserError, match=r"none of the .* new tokens occurs"):
        mine_snippets(corpus(tmp_path, ["0 1 2", "3"]), way, vocab.new)


def test_a_window_never_leaves_its_document() -> None:
    source = np.array([1, 2, -1, 3, 4, 5, -1])
    text = Aligned(source, np.array([9, -1, 3, 9, -1]), np.array([2, -1, 4, 6, -1]))
    miner = Miner([9], per_token=5, length=6)
    miner.add(text)
    rows = miner.snippets("x").rows
    assert rows[:, 0].tolist() == [[1, 2, -1, -1, -1, -1], [3, 4, 5, -1, -1, -1]]
    assert rows[:, 1].tolist() == [[9, -1, -1, -1, -1, -1], [3, 9, -1, -1, -1, -1]]
    assert rows[:, 2].tolist() == [[2, -1, -1, -1, -1, -1], [1, 3, -1, -1, -1, -1]]
