"""Every reader in every compression, its options, and what it says about bad files."""

from __future__ import annotations

import json
import tracemalloc
from itertools import islice

import pytest
from corpus_samples import TEXTS

from warmstart.corpus import CorpusSettings, open_corpus, readers, streams
from warmstart.corpus.reading import suffixes
from warmstart.foundation.errors import UserError


def texts(path, **settings):
    corpus = open_corpus({"path": str(path), **settings})
    return [document.text for document in corpus.documents("all")]


def ids(path, **settings):
    return [d.id for d in open_corpus({"path": str(path), **settings}).documents("all")]


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_format_and_compression_gives_the_texts_back(write, suffix, compression):
    path = write(f"data{suffix}{compression}", TEXTS)
    assert texts(path) == TEXTS
    assert len(set(ids(path))) == len(TEXTS)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_fields_and_metadata(write, suffix):
    path = write(f"data{suffix}", ["x"] * 4, body=TEXTS, year=[1, 2, 3, 4])
    corpus = open_corpus({"path": str(path), "text_field": "body", "metadata_fields": ["year"]})
    documents = list(corpus.documents("all"))
    assert [d.text for d in documents] == TEXTS
    assert [int(d.metadata["year"]) for d in documents] == [1, 2, 3, 4]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_a_missing_field_is_named_with_those_there_are(write, suffix):
    path = write(f"data{suffix}", TEXTS, year=[1, 2, 3, 4])
    with pytest.raises(UserError, match=r"no field 'content'; the fields are: text, year.*text_field"):
        texts(path, text_field="content")
    with pytest.raises(UserError, match=r"no field 'day'.*metadata_fields"):
        texts(path, metadata_fields=["day"])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_field_that_is_no_text_is_refused(write, suffix):
    path = write(f"data{suffix}", TEXTS, year=[1, 2, 3, 4])
    with pytest.raises(UserError, match="holds a int, not text"):
        texts(path, text_field="year")


def test_blank_and_null_texts_are_left_out(write):
    rows = [{"text": None}, {"text": "  "}, {"text": "kept"}]
    path = write("a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    assert texts(path) == ["kept"]


def test_nested_json_fields(write):
    path = write("a.jsonl", json.dumps({"page": {"text": "deep"}}))
    assert texts(path, text_field="page.text") == ["deep"]


@pytest.mark.parametrize("line", ['{"text": "cut o', "[1]", '"text"'])
def test_a_bad_json_line_is_named(write, line):
    path = write("a.jsonl", '{"text": "fine"}\n' + line + "\n")
    with pytest.raises(UserError, match=r"a\.jsonl:2"):
        texts(path)


def test_a_damaged_parquet_file(write):
    whole = write("a.parquet", TEXTS).read_bytes()
    path = write("b.parquet", whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not whole Parquet"):
        texts(path)


@pytest.mark.parametrize("compression", [".gz", ".zst"])
@pytest.mark.parametrize("part", [0.4, 0.999])
def test_a_cut_off_compressed_file(write, compression, part):
    import random

    draw = random.Random(0)
    lines = ["".join(draw.choices("abcdefghij ", k=80)) for _ in range(20_000)]
    whole = write(f"a.txt{compression}", lines).read_bytes()
    path = write("b.txt", whole[: int(len(whole) * part)]).rename(
        whole_path := write("a.txt", "").parent / f"c.txt{compression}"
    )
    assert path == whole_path
    with pytest.raises(UserError, match="cut off"):
        texts(path)
    with pytest.raises(UserError, match="cut off"):
        open_corpus(path).fingerprint


def test_several_frames_of_zst_are_one_file(tmp_path):
    import zstandard

    path = tmp_path / "a.txt.zst"
    frames = [zstandard.ZstdCompressor(write_checksum=c).compress(b"line\n") for c in (True, False)]
    path.write_bytes(b"".join(frames))
    assert texts(path) == ["line", "line"]


def test_units_of_text(write):
    path = write("a.txt", "one\ntwo\n\n\n  \nthree\r\nfour\n")
    assert texts(path, unit="line") == ["one", "two", "three", "four"]
    assert texts(path, unit="paragraph") == ["one\ntwo", "three\nfour"]
    assert texts(path, unit="file") == ["one\ntwo\n\n\n\nthree\nfour"]
    assert texts(path) == texts(path, unit="paragraph"), "auto sees the blank line"
    assert ids(path, unit="paragraph") == ["a.txt:1", "a.txt:6"]
    assert texts(write("b.txt", "one\ntwo\n")) == ["one", "two"], "auto without blank lines"


def test_short_units_are_joined(write):
    path = write("a.txt", "aaa\n\nbbb\n\nccc\n\nddddddddddddd\n\ne")
    assert texts(path, min_characters=7) == ["aaa\n\nbbb", "ccc\n\nddddddddddddd", "e"]
    lines = write("b.txt", "\n".join("abcdefgh"))
    assert texts(lines, unit="line", min_characters=6) == ["a\nb\nc", "d\ne\nf", "g\nh"]


def test_a_giant_line_is_refused_unless_asked_for(write):
    path = write("a.txt", "short\n" + "word " * 300 + "\nshort\n")
    with pytest.raises(UserError, match=r"line 2 is longer than 1,000 char.*unit: line"):
        texts(path, max_document_characters=1000)
    assert len(texts(path, max_document_characters=1000, unit="line")) == 4


@pytest.mark.parametrize("unit", ["line", "paragraph", "file"])
def test_a_giant_line_is_cut_at_spaces_in_bounded_memory(tmp_path, unit, monkeypatch):
    monkeypatch.setattr(streams, "CHUNK", 100_000)
    path = tmp_path / "giant.txt"
    with path.open("w") as file:
        for start in range(0, 1_000_000, 1000):
            file.write(" ".join(str(n) for n in range(start, start + 1000)) + " ")
    tracemalloc.start()
    corpus = open_corpus({"path": str(path), "unit": unit, "max_document_characters": 20_000})
    total, longest, numbers = 0, 0, 0
    for document in corpus.documents("all"):
        total += len(document.text)
        longest = max(longest, len(document.text))
        numbers += len(document.text.split())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 6e6
    assert peak < 3e6
    assert longest <= corpus.settings.max_document_characters
    assert numbers == 1_000_000, "no number was cut in two or lost"


def test_parts_of_one_file_stay_together_and_parts_of_a_giant_line_do_not(write):
    text = " ".join(f"word{n}" for n in range(20_000))
    path = write("a.txt", text)
    whole = open_corpus({"path": str(path), "unit": "file", "max_document_characters": 1000})
    keys = {document.key for document in whole.documents("all")}
    assert len(keys) == 1 and "" not in keys
    filled = [name for name, count in whole.statistics().items() if count["documents"]]
    assert len(filled) == 1
    line = open_corpus({"path": str(path), "unit": "line", "max_document_characters": 1000})
    assert all(count["documents"] for count in line.statistics().values())


def test_long_records_are_cut_without_loss(write):
    text = " ".join(f"w{n}" for n in range(1000))
    path = write("a.jsonl", [text])
    parts = list(open_corpus({"path": str(path), "max_document_characters": 100}).documents("all"))
    assert "".join(part.text for part in parts) == text
    assert max(len(part.text) for part in parts) <= 100
    assert len({part.id for part in parts}) == len(parts)


def test_quotes_in_tables(write):
    path = write("a.csv", 'text,n\n"one, two",1\n"line\nbreak and ""quote""",2\n')
    assert texts(path) == ["one, two", 'line\nbreak and "quote"']
    raw = write("b.tsv", 'text\tn\n"a" b\t1\n"open\t2\n')
    assert texts(raw) == ['"a" b', '"open'], "quotes are text in .tsv"
    assert texts(write("c.tsv", 'text\tn\n"a\tb"\t1\n'), quoting="minimal") == ["a\tb"]
    assert texts(write("d.csv", 'text,n\n"a,1\n'), quoting="none") == ['"a']


def test_an_open_quote_is_reported_where_its_row_starts(write):
    path = write("a.csv", 'text,n\nfine,1\n"never closed,2\nmore,3\n')
    with pytest.raises(UserError, match=r"row that starts on line 3.*quoting: none"):
        texts(path)


def test_tables_without_a_header(write):
    path = write("a.tsv", "first\t1\nsecond\t0\n")
    assert texts(path, header=False, text_field=0) == ["first", "second"]
    with pytest.raises(UserError, match="number from 0 to 1"):
        texts(path, header=False)
    with pytest.raises(UserError, match="header: false"):
        texts(path)


def test_a_row_of_another_length_is_named(write):
    path = write("a.tsv", "text\tlabel\nfine\t1\ntoo\tmany\tfields\n")
    with pytest.raises(UserError, match=r"3 fields where the first has 2.*a\.tsv:3"):
        texts(path)


def test_folders_are_read_sorted_and_mixed(write, tmp_path):
    write("in/b.jsonl", ["from b"])
    write("in/a/deep.txt.gz", ["from a"])
    write("in/c.csv.zst", ["from c"])
    write("in/README.md", "not this")
    write("in/.hidden.txt", "nor this")
    assert texts(tmp_path / "in") == ["from a", "from b", "from c"]
    assert ids(tmp_path / "in")[0] == "a/deep.txt.gz:1"


def test_reader_can_be_forced(write):
    path = write("notes.md", "a line\nanother\n")
    with pytest.raises(UserError, match=r"unknown file type '\.md'.*\.jsonl.*reader: txt"):
        texts(path)
    assert texts(path, reader="txt") == ["a line", "another"]
    with pytest.raises(UserError, match=r"unknown reader 'jsnol'.*did you mean 'jsonl'"):
        texts(path, reader="jsnol")


def test_all_readers_are_reached_by_a_suffix():
    assert set(suffixes().values()) == set(readers.names())


def test_documents_are_streamed(write):
    path = write("a.jsonl", '{"text": "fine"}\nbroken\n')
    assert [d.text for d in islice(open_corpus(path).documents("all"), 1)] == ["fine"]


def test_settings_take_a_plain_path(write):
    path = write("a.txt", TEXTS)
    assert CorpusSettings.parse(path) == CorpusSettings.parse({"path": str(path)})
    with pytest.raises(UserError, match="did you mean 'text_field'"):
        CorpusSettings.parse({"path": "x", "textfield": "a"})
    with pytest.raises(UserError, match="leave nothing to train on"):
        CorpusSettings.parse({"path": "x", "valid_fraction": 0.5, "test_fraction": 0.5})
