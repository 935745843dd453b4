"""Opening a corpus: official splits, limits, fingerprints, hub data, and what cannot be opened."""

from __future__ import annotations

import os

import pytest
from corpus_samples import TEXTS

from warmstart.corpus import describe, open_corpus, reading
from warmstart.foundation.errors import UserError

MANY = [f"document number {n}" for n in range(400)]


def by_split(corpus):
    return {split: [d.text for d in corpus.documents(split)] for split in ("train", "valid", "test")}


def test_splits_partition_the_documents_and_statistics_count_them(write):
    corpus = open_corpus(write("a.txt", MANY))
    parts = by_split(corpus)
    assert sorted(text for texts in parts.values() for text in texts) == sorted(MANY)
    assert [d.text for d in corpus.documents("all")] == MANY, "in reading order"
    expected = {
        split: {"documents": len(texts), "bytes": sum(len(t.encode()) for t in texts)}
        for split, texts in parts.items()
    }
    assert corpus.statistics() == expected
    assert all(texts for texts in parts.values())


def test_files_named_after_splits_are_official(write, tmp_path):
    write("data/train-00.txt", MANY[:50])
    write("data/train-01.txt.gz", MANY[50:80])
    write("data/validation.jsonl", MANY[80:90])
    write("data/test.txt", MANY[90:95])
    corpus = open_corpus(tmp_path / "data")
    assert by_split(corpus) == {"train": MANY[:80], "valid": MANY[80:90], "test": MANY[90:95]}
    one = open_corpus({"path": str(tmp_path / "data"), "split": "train"})
    assert sorted(d.text for d in one.documents("all")) == sorted(MANY[:80])
    assert set(by_split(one)["train"]) < set(MANY[:80]), "the split is divided anew"
    assert one.fingerprint != corpus.fingerprint
    with pytest.raises(UserError, match="did you mean 'train'"):
        open_corpus({"path": str(tmp_path / "data"), "split": "trian"})


def test_a_missing_official_split_is_cut_out_of_train(write, tmp_path):
    write("data/train.txt", MANY)
    write("data/test.txt", ["for testing"])
    parts = by_split(open_corpus(tmp_path / "data"))
    assert parts["test"] == ["for testing"]
    assert sorted(parts["train"] + parts["valid"]) == sorted(MANY)
    assert 0 < len(parts["valid"]) < 60


def test_other_file_names_make_no_official_splits(write, tmp_path):
    write("data/train.txt", MANY)
    write("data/trainspotting.txt", ["more"])
    assert open_corpus(tmp_path / "data").source.splits == ()


def test_limits_shorten_train_and_leave_the_held_out_text(write):
    path = write("a.txt", MANY)
    full = by_split(open_corpus(path))
    few = by_split(open_corpus({"path": str(path), "max_documents": 7}))
    assert few == {**full, "train": full["train"][:7]}
    small = by_split(open_corpus({"path": str(path), "max_bytes": 100}))
    assert small == {**full, "train": full["train"][: len(small["train"])]}
    size = sum(len(t.encode()) for t in small["train"])
    following = full["train"][len(small["train"])]
    assert size <= 100 < size + len(following.encode())
    held = by_split(open_corpus({"path": str(path), "max_held_out_bytes": 60}))
    assert held["train"] == full["train"]
    assert 0 < len(held["valid"]) < len(full["valid"])


def test_reading_stops_at_the_limit(write):
    lines = '{"text": "fine"}\n' * 50 + "broken\n"
    corpus = open_corpus({"path": str(write("a.jsonl", lines)), "max_documents": 5, "valid_fraction": 0})
    corpus = open_corpus(corpus.settings.model_copy(update={"test_fraction": 0.0}))
    assert len(list(corpus.documents("train"))) == 5


def test_fingerprint_follows_content_and_reading_settings(write, tmp_path):
    path = write("a.txt", TEXTS)
    first = open_corpus(path).fingerprint
    assert open_corpus({"path": str(path), "language": "de"}).fingerprint == first
    assert open_corpus({"path": str(path), "unit": "file"}).fingerprint != first
    assert open_corpus({"path": str(path), "seed": 1}).fingerprint != first
    other = tmp_path / "elsewhere"
    other.mkdir()
    moved = other / "a.txt"
    moved.write_bytes(path.read_bytes())
    assert open_corpus(moved).fingerprint == first, "the folder does not matter"
    assert open_corpus(write("z/a.txt.gz", TEXTS)).fingerprint == first, "nor does compression"
    assert open_corpus(write("b.txt", TEXTS)).fingerprint != first, "the name does"
    path.write_text("other text of another length")
    assert open_corpus(path).fingerprint != first


def test_a_change_of_equal_size_is_seen_although_hashes_are_remembered(write, monkeypatch):
    monkeypatch.setattr(reading, "REMEMBER_BYTES", 0)
    path = write("a.txt", "first text")
    long_ago = 1_600_000_000
    os.utime(path, (long_ago, long_ago))
    first = open_corpus(path).fingerprint
    assert open_corpus(path).fingerprint == first
    path.write_text("other text")
    os.utime(path, (long_ago + 1, long_ago + 1))
    assert open_corpus(path).fingerprint != first


def test_remembered_hashes_are_used(write, monkeypatch):
    monkeypatch.setattr(reading, "REMEMBER_BYTES", 0)
    path = write("a.txt", "some text")
    os.utime(path, (1_600_000_000, 1_600_000_000))
    first = open_corpus(path).fingerprint
    monkeypatch.setattr(reading, "content_hash", lambda path: pytest.fail("hashed again"))
    assert open_corpus(path).fingerprint == first


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", ""), ("a.txt", "\n \n"), ("a.jsonl", ""), ("a.csv", "")]
)
def test_an_empty_corpus(write, name, content):
    path = write(name, content)
    for read in (lambda c: list(c.documents("train")), describe):
        with pytest.raises(UserError, match="the corpus holds no text"):
            read(open_corpus(path))


def test_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match=r"no text to read.*put files of these types"):
        open_corpus(tmp_path)
    (tmp_path / "picture.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"it holds picture\.png"):
        open_corpus(tmp_path)


def test_a_split_without_documents_is_told(write):
    corpus = open_corpus(write("a.txt", ["only one"]))
    empty = "valid" if corpus.statistics()["train"]["documents"] else "train"
    with pytest.raises(UserError, match=f"the {empty} split holds no document.*too few"):
        list(corpus.documents(empty))
    none = open_corpus({"path": str(write("b.txt", MANY)), "valid_fraction": 0})
    with pytest.raises(UserError, match="set valid_fraction above 0"):
        list(none.documents("valid"))
    with pytest.raises(UserError, match="unknown split 'validation'"):
        list(none.documents("validation"))


def test_near_names_for_what_is_not_there(write, tmp_path):
    write("captions.jsonl", TEXTS)
    with pytest.raises(UserError, match=r"did you mean '.*captions\.jsonl'"):
        open_corpus(tmp_path / "caption.jsonl")
    with pytest.raises(UserError, match="did you mean 'python-stdlib/docs'"):
        open_corpus("python-stdlib/dosc")
    with pytest.raises(UserError, match="did you mean 'wikitext2'"):
        open_corpus("wikitext")
    with pytest.raises(UserError, match="multi30k/de"):
        open_corpus("multi30k/dee")


def test_a_folder_wins_over_a_named_set(write, tmp_path, monkeypatch):
    write("multi30k/de/a.txt", ["mine"])
    monkeypatch.chdir(tmp_path)
    assert [d.text for d in open_corpus("multi30k/de").documents("all")] == ["mine"]


def test_a_dataset_of_the_hub_library_from_a_local_folder(write, tmp_path):
    pytest.importorskip("datasets")
    write("set/data/train-00000-of-00001.parquet", MANY[:100], year=list(range(100)))
    write("set/data/validation-00000-of-00001.parquet", MANY[100:110], year=list(range(10)))
    corpus = open_corpus({"path": f"hf:{tmp_path / 'set'}", "metadata_fields": ["year"]})
    assert corpus.source.splits == ("train", "valid")
    parts = by_split(corpus)
    assert parts["valid"] == MANY[100:110]
    assert sorted(parts["train"] + parts["test"]) == sorted(MANY[:100])
    assert next(corpus.documents("valid")).metadata["year"] == 0
    assert corpus.fingerprint == open_corpus(corpus.settings).fingerprint
    with pytest.raises(UserError, match="no field 'body'; the fields are: text, year"):
        list(open_corpus({"path": f"hf:{tmp_path / 'set'}", "text_field": "body"}).documents())
    part = open_corpus({"path": f"hf:{tmp_path / 'set'}", "split": "train[:10]", "metadata_fields": []})
    assert sorted(d.text for d in part.documents("all")) == sorted(MANY[:10])
    with pytest.raises(UserError, match="did you mean 'train'"):
        open_corpus({"path": f"hf:{tmp_path / 'set'}", "split": "tran"})


def test_a_hub_id_without_network_says_so():
    pytest.importorskip("datasets")
    with pytest.raises(
        UserError, match=r"cannot be loaded.*someone/some-data.*switched off \(HF_HUB_OFFLINE\)"
    ):
        open_corpus("someone/some-data")


def test_describe(write):
    path = write("a.txt", [*MANY, *MANY[:100], "Привет мир", "你好"])
    report = describe(open_corpus(path), samples=3, sample_characters=8)
    assert report["documents"] == 502
    assert report["bytes"] == sum(split["bytes"] for split in report["splits"].values())
    assert report["duplicates"] == pytest.approx(100 / 502)
    assert list(report["scripts"]) == ["Latin", "Cyrillic", "Cjk"]
    assert report["scripts"]["Cjk"] == pytest.approx(2 / (500 * 14 + 9 + 2))
    assert sum(report["scripts"].values()) == pytest.approx(1)
    assert len(report["samples"]) == 3
    assert all(len(sample["text"]) <= 9 for sample in report["samples"])
    assert report["samples"] == describe(open_corpus(path), samples=3, sample_characters=8)["samples"]
    assert describe(open_corpus(path), samples=0)["samples"] == []
    assert report["longest_characters"] == max(map(len, MANY))
