"""Decoding in pieces: offsets, line ends, encodings, binary data."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstart.corpus import open_corpus, streams
from warmstart.corpus.streams import text_chunks, text_lines, whole_lines
from warmstart.foundation.errors import UserError

LINE_TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r\n\ufeff"), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(st.lists(LINE_TEXT, max_size=8), st.sampled_from(["\n", "\r\n", "\r"]), st.integers(2, 9))
def test_lines_equal_a_simple_split_whatever_the_chunk(tmp_path_factory, lines, end, chunk):
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(end.join(lines).encode())
    expected = end.join(lines).replace(end, "\n").split("\n")
    if expected[-1] == "":
        expected.pop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", chunk)
        got = list(text_lines(path))
    assert [text for _, text, _ in got] == expected
    assert [number for number, _, _ in got] == list(range(1, len(expected) + 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(LINE_TEXT, max_size=5), st.integers(10, 25), st.integers(2, 9))
def test_pieces_of_long_lines_join_to_the_line(tmp_path_factory, words, limit, chunk):
    line = " ".join(words * 3)
    path = tmp_path_factory.mktemp("pieces") / "a.txt"
    path.write_text(line + "\nlast", encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", chunk)
        got = [(text, whole) for number, text, whole in text_lines(path, limit=limit) if number == 1]
    assert "".join(text for text, _ in got) == line
    assert all(len(text) <= limit for text, _ in got)
    assert [whole for _, whole in got] == [False] * (len(got) - 1) + [True]


@pytest.mark.parametrize("chunk", [1, 3, 7, 1 << 20])
def test_latin_1_is_named_with_offset_and_remedy(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(streams, "CHUNK", max(chunk, 2))
    path = tmp_path / "a.txt"
    path.write_bytes("Ein Größenvergleich".encode("latin-1"))
    with pytest.raises(
        UserError, match=r"byte 0xf6 at offset 6 is not valid utf-8 .*a\.txt.*encoding: latin-1"
    ):
        list(text_chunks(path))
    assert "".join(text_chunks(path, "latin-1")) == "Ein Größenvergleich"
    corpus = open_corpus({"path": str(path), "encoding": "latin-1"})
    assert [d.text for d in corpus.documents("all")] == ["Ein Größenvergleich"]


def test_windows_text_is_told_from_latin_1(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("a “quote”".encode("cp1252"))
    with pytest.raises(UserError, match="encoding: cp1252"):
        list(text_chunks(path))


def test_a_character_cut_off_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("ab€".encode()[:-1])
    with pytest.raises(UserError, match="offset 2 is not valid utf-8"):
        list(text_chunks(path))


def test_binary_files_are_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"looks fine\x00\x01\x02")
    with pytest.raises(UserError, match=r"binary, not text .a NUL at byte 10"):
        list(text_chunks(path))
    path.write_bytes(bytes([0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 3, 4, 5, 6]))
    with pytest.raises(UserError, match="looks like binary data"):
        list(text_chunks(path))


def test_utf_16(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("zwei\nZeilen\n", encoding="utf-16")
    with pytest.raises(UserError, match="encoding: utf-16"):
        list(text_chunks(path))
    assert [text for _, text in whole_lines(path, "utf-16")] == ["zwei", "Zeilen"]


def test_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbftext")
    assert "".join(text_chunks(path)) == "text"


@pytest.mark.parametrize("name", ["utf-9", "rot13", "hex"])
def test_unknown_encodings(tmp_path, name):
    path = tmp_path / "a.txt"
    path.write_text("text")
    with pytest.raises(UserError, match=name):
        list(text_chunks(path, name))


def test_a_record_longer_than_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "LINE_LIMIT", 1000)
    monkeypatch.setattr(streams.text_lines, "__defaults__", ("utf-8", 1000))
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "' + "x" * 2000 + '"}')
    with pytest.raises(UserError, match="line 1 is longer than 1,000 characters"):
        list(open_corpus(path).documents("all"))
