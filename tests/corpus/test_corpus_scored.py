"""Pairs of sentences with scores."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from warmstart.corpus.scored import scored_pairs
from warmstart.foundation.errors import UserError


def test_files_with_tabs_or_commas(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("one cat\ta dog\t3.5\n\ntwo\tthree\t1\n")
    (tmp_path / "a.csv").write_text('"one, cat",a dog,3.5\n')
    found = scored_pairs(tmp_path / "a.tsv")
    assert found == (["one cat", "two"], ["a dog", "three"], [3.5, 1.0])
    assert scored_pairs(tmp_path / "a.csv") == (["one, cat"], ["a dog"], [3.5])


def test_sick_is_read_from_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pair_sick"
    folder.mkdir()
    text = (
        "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment\n6\tA b\tC d\t3.3\tNEUTRAL\n"
    )
    (folder / "trial.tsv.gz").write_bytes(gzip.compress(text.encode()))
    monkeypatch.setenv("WARMSTART_DATA", str(tmp_path))
    assert scored_pairs("sick", "valid") == (["A b"], ["C d"], [3.3])
    with pytest.raises(UserError, match="no part 'all'"):
        scored_pairs("sick", "all")
    with pytest.raises(UserError, match="not on this machine"):
        scored_pairs("sick", "test")


@pytest.mark.parametrize("line", ["a\tb", "a\tb\tmuch", "a\t\t1", "a\tb\tnan"])
def test_a_line_that_is_no_scored_pair_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.tsv").write_text(f"one\ttwo\t3\n{line}\n")
    with pytest.raises(UserError, match="line 2 does not hold two texts and a number"):
        scored_pairs(tmp_path / "a.tsv")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.tsv").write_text("\n")
    for path, message in ((tmp_path / "empty.tsv", "no pair"), (tmp_path, "a folder"), ("nope", "nope")):
        with pytest.raises(UserError, match=message):
            scored_pairs(path)
