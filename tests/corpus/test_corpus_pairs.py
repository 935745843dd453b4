"""Pairs from files: formats, malformed lines, fingerprints."""

from __future__ import annotations

import gzip

import pytest

from warmstart.corpus import open_pairs
from warmstart.corpus.pairs import read_parallel
from warmstart.foundation.errors import UserError

PAIRS = [("house", "Haus"), ("to go", "gehen"), ('a "quote"', "ein „Zitat“")]


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.tsv.zst", "a.txt"])
def test_tab_separated(write, name):
    pairs = open_pairs(write(name, "".join(f"{a}\t{b}\n" for a, b in PAIRS) + "\n"))
    assert list(pairs) == PAIRS
    assert list(pairs) == PAIRS, "can be read again"
    assert list(pairs.swapped()) == [(b, a) for a, b in PAIRS]


def test_other_formats(write):
    assert list(open_pairs(write("a.csv", 'one,"a, b"\n'))) == [("one", "a, b")]
    assert list(open_pairs(write("muse.txt", "the die\nof von\n"))) == [("the", "die"), ("of", "von")]


def test_malformed_lines_are_counted_and_the_first_named(write):
    path = write("a.tsv", "house\tHaus\nbroken\n\na\tb\tc\nempty\t \nfine\tgut\n")
    with pytest.raises(
        UserError, match=r"line 2 has 1 field instead of two texts; 3 lines are malformed .*a\.tsv"
    ):
        list(open_pairs(path))
    with pytest.raises(UserError, match="line 1 has an empty field"):
        list(open_pairs(write("b.tsv", "\tHaus\n")))
    with pytest.raises(UserError, match=r"line 2 has 3 fields instead of two texts [(]"):
        list(open_pairs(write("muse.txt", "the die\nof von zu\n")))


def test_fingerprint_follows_content_and_direction(write):
    first = open_pairs(write("a.tsv", "house\tHaus\n"))
    assert open_pairs(write("x/a.tsv.gz", "house\tHaus\n")).fingerprint == first.fingerprint
    assert open_pairs(write("y/a.tsv", "house\tHeim\n")).fingerprint != first.fingerprint
    assert first.swapped().fingerprint != first.fingerprint


def test_what_cannot_be_opened(write, tmp_path):
    write("words.tsv", "a\tb\n")
    with pytest.raises(UserError, match=r"did you mean '.*words\.tsv'"):
        open_pairs(tmp_path / "word.tsv")
    with pytest.raises(UserError, match="a folder, not a file of pairs"):
        open_pairs(tmp_path)
    with pytest.raises(UserError, match="there is no pair in it"):
        list(open_pairs(write("empty.tsv", "")))
    with pytest.raises(
        UserError, match=r"unknown data set 'dictionary/en-deu'.*did you mean 'dictionary/en-de'"
    ):
        open_pairs("dictionary/en-deu")
    with pytest.raises(UserError, match="no data of this kind"):
        open_pairs("wikitext2")


def test_parallel_files(tmp_path):
    left, right = tmp_path / "a.en.gz", tmp_path / "a.de"
    left.write_bytes(gzip.compress(b"one\n\nthree\n"))
    right.write_text("eins\nzwei\ndrei\n")
    assert list(read_parallel(left, right)) == [("one", "eins"), ("three", "drei")]
    right.write_text("eins\nzwei\ndrei\nvier\n")
    with pytest.raises(UserError, match=r"a\.de has more lines than its other half"):
        list(read_parallel(left, right))
