"""Labelled texts: which split a text is in, the labels, and bad input."""

from __future__ import annotations

import gzip

import pytest

from warmstart.corpus import open_corpus
from warmstart.corpus.labelled import labelled, labelled_fingerprint, labelled_names
from warmstart.foundation.errors import UserError


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with verses of four books in English and German; German lacks the first chapters."""
    folder = tmp_path / "data"
    monkeypatch.setenv("WARMSTART_DATA", str(folder))
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))

    def put(name, text):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()))

    ids = [
        f"{book}.{chapter}.{verse}"
        for book in ("MAT", "ACT", "ROM", "REV")
        for chapter in range(1, 41)
        for verse in (1, 2)
    ]
    put("bible_verses/eng_web.tsv.gz", "GEN.1.1\tOld\n" + "".join(f"{i}\tEnglish {i}\n" for i in ids))
    put("bible_verses/deu_luther1912.tsv.gz", "".join(f"{i}\tDeutsch {i}\n" for i in ids[9:]))
    return put


def test_verses_carry_the_kind_of_their_book_and_chapters_stay_together(data):
    splits = {split: labelled("bible/eng", split) for split in ("train", "valid", "test")}
    kinds = {"MAT": "gospel", "ACT": "acts", "ROM": "letter", "REV": "vision"}
    chapters = {}
    for split, (texts, labels) in splits.items():
        assert set(labels) == set(kinds.values())
        assert all(kinds[text.split()[1][:3]] == label for text, label in zip(texts, labels))
        chapters[split] = {text.split()[1].rpartition(".")[0] for text in texts}
    assert not chapters["train"] & chapters["test"]
    assert not chapters["train"] & chapters["valid"]
    assert sum(map(len, chapters.values())) == 160, "every chapter of the New Testament is in one split"
    assert len(chapters["train"]) > 2 * len(chapters["test"]) > 0
    texts, labels = labelled("bible/eng", "all")
    assert len(texts) == 320
    assert "Old" not in texts, "Genesis belongs to no kind"
    assert labelled("bible/eng", "all") == (texts, labels), "the same every time"


def test_the_same_chapters_are_held_out_in_every_language_and_by_the_corpus(data):
    def chapters(texts):
        return {text.split()[1].rpartition(".")[0] for text in texts}

    english, german = (chapters(labelled(f"bible/{language}", "test").texts) for language in ("eng", "deu"))
    missing = {f"MAT.{n}" for n in range(1, 6)}
    assert english - missing == german - missing != set()
    corpus = open_corpus("bible/eng")
    held_out = {document.id.split(":")[1] for document in corpus.documents("test")}
    assert held_out <= english, "what the corpus keeps for its test is never learned from here"
    trained_on = {document.id.split(":")[1] for document in corpus.documents("valid")}
    assert trained_on <= chapters(labelled("bible/eng", "valid").texts)


def test_official_splits_stay_and_a_missing_one_is_cut_out_of_train(data):
    lines = [f"{'LOC' if i % 2 else 'NUM'}\tX:y\tquestion {i} ?" for i in range(200)]
    data("cls_trec/train.tsv.gz", "\n".join(["coarse\tfine\tquestion", *lines]))
    data("cls_trec/test.tsv.gz", "coarse\tfine\tquestion\nLOC\tX:y\twhere ?\nHUM\tX:y\twho ?\n")
    assert labelled("trec", "test") == (["where ?"], ["LOC"]), "HUM was never to be learned"
    train, valid = labelled("trec", "train"), labelled("trec", "valid")
    assert len(train.texts) + len(valid.texts) == 200
    assert 5 < len(valid.texts) < 50
    assert not set(train.texts) & set(valid.texts)


def test_own_files(tmp_path):
    path = tmp_path / "mine.tsv"
    rows = [f"text {i}\t{'even' if i % 2 == 0 else 'odd'}" for i in range(100)]
    path.write_text("text\tlabel\n" + "\n".join(rows))
    texts, labels = labelled(str(path), "all")
    assert len(texts) == 100
    assert all((int(text.split()[1]) % 2 == 0) == (label == "even") for text, label in zip(texts, labels))
    before = labelled_fingerprint(str(path))
    path.write_text("text\tlabel\n" + "\n".join(rows[:-1]))
    assert labelled_fingerprint(str(path)) != before
    path.write_text("text\tlabel\n" + "\n".join(rows[::2]))
    with pytest.raises(UserError, match=r"1 label"):
        labelled(str(path))
    path.write_text("text\tkind\nword\ta\n")
    with pytest.raises(UserError, match="label"):
        labelled(str(path))


def test_bad_names(data, tmp_path):
    assert {"bible/eng", "python-stdlib/package", "sst2"} <= set(labelled_names())
    with pytest.raises(UserError, match=r"bibel/eng.*did you mean"):
        labelled("bibel/eng")
    with pytest.raises(UserError, match=r"tset.*did you mean 'test'"):
        labelled("bible/eng", "tset")
    with pytest.raises(UserError, match="no-such"):
        labelled(str(tmp_path / "no-such.tsv"))
    with pytest.raises(UserError, match=r"sst2.*not on this machine"):
        labelled("sst2")


def test_packages_of_the_standard_library(monkeypatch, tmp_path):
    from warmstart.corpus.named import python_stdlib

    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path))
    whole = python_stdlib.stdlib_files
    few = ("asyncio/", "email/", "json/")
    monkeypatch.setattr(
        python_stdlib,
        "stdlib_files",
        lambda root, code: [f for f in whole(root, code=code) if f.id.startswith(few)],
    )
    texts, labels = labelled("python-stdlib/package", "all")
    assert set(labels) == {"asyncio", "email"}, "json is too small"
    assert min(map(len, texts)) >= 400
    held_out = set(labelled("python-stdlib/package", "test").texts)
    assert held_out
    assert not held_out & set(labelled("python-stdlib/package").texts)
