"""Named sets in a miniature data folder, and the standard library of this Python."""

from __future__ import annotations

import ast
import gzip
import tokenize
from io import StringIO

import pytest

from warmstart.corpus import datasets, open_corpus, open_pairs
from warmstart.corpus.named_set import dataset_names
from warmstart.foundation.errors import UserError


@pytest.fixture
def data(tmp_path, monkeypatch):
    """An empty data folder and a function that writes gzipped files into it."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("WARMSTART_DATA", str(folder))
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))

    def put(name, text):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())

    return put


def test_every_family_names_its_members_and_refuses_others():
    names = dataset_names()
    assert {"python-stdlib/docs", "multi30k/en", "multi30k/en-de", "bible/eng-kjv", "wikitext2"} <= set(names)
    for family in datasets.names():
        assert any(name.split("/")[0] == family for name in names)
        with pytest.raises(UserError, match=family):
            open_corpus(f"{family}/no-such-member")


ALWAYS_THERE = {"arithmetic", "brackets", "cipher/letters", "cipher/words"}
DOWNLOADED = [n for n in dataset_names() if "python-stdlib" not in n and n not in ALWAYS_THERE]


@pytest.mark.parametrize("name", DOWNLOADED)
def test_without_files_or_network_each_says_how_to_get_it(name, data):
    family, _, member = name.partition("/")
    opener = open_corpus if member in datasets.get(family).target().corpora() else open_pairs
    with pytest.raises(UserError, match=r"not on this machine.*WARMSTART_DATA"):
        opener(name)


def _multi30k(data):
    for split, count in (("train", 4), ("val", 2), ("test2016", 1)):
        for language in ("en", "de"):
            for caption in range(1, 6):
                lines = [f"{language} {split} caption {caption} of image {n}" for n in range(count)]
                data(f"multi30k_en_de/task2.{split}.{caption}.{language}.txt.gz", "\n".join(lines) + "\n")
            lines = [f"{language} {split} sentence {n}" for n in range(count)]
            data(f"multi30k_en_de/task1.{split}.{language}.txt.gz", "\n".join(lines) + "\n")


def test_multi30k(data):
    _multi30k(data)
    corpus = open_corpus("multi30k/de")
    counts = {split: count["documents"] for split, count in corpus.statistics().items()}
    assert counts == {"train": 20, "valid": 10, "test": 5}
    assert all(" val " in d.text and d.metadata["split"] == "valid" for d in corpus.documents("valid"))
    assert corpus.language == "de"
    pairs = open_pairs("multi30k/en-de", "valid")
    assert list(pairs) == [(f"en val sentence {n}", f"de val sentence {n}") for n in range(2)]
    assert next(iter(open_pairs("multi30k/de-en"))) == ("de train sentence 0", "en train sentence 0")
    assert len(list(open_pairs("multi30k/en-de", "all"))) == 7
    assert open_pairs("multi30k/en-de").fingerprint != pairs.fingerprint
    with pytest.raises(UserError, match=r"no split 'vaild'.*did you mean 'valid'"):
        open_pairs("multi30k/en-de", "vaild")
    one = open_corpus({"path": "multi30k/de", "split": "test"})
    assert sum(count["documents"] for count in one.statistics().values()) == 5


def test_bible_holds_out_the_same_chapters_everywhere(data):
    ids = [
        f"{book}.{chapter}.{verse}" for book in ("MAT", "LUK") for chapter in range(1, 29) for verse in (1, 2)
    ]
    data("bible_verses/eng_web.tsv.gz", "".join(f"{i}\tEnglish {i}\n" for i in ids))
    data("bible_verses/deu_luther1912.tsv.gz", "".join(f"{i}\tDeutsch {i}\n" for i in ids[3:]))
    corpora = {name: open_corpus(f"bible/{name}") for name in ("eng", "deu")}
    held_out = {}
    for name, corpus in corpora.items():
        assert corpus.statistics()["train"]["documents"] > 40
        held_out[name] = {d.id.split(":")[1] for s in ("valid", "test") for d in corpus.documents(s)}
    assert held_out["eng"] - {"MAT.1", "MAT.2"} == held_out["deu"] - {"MAT.1", "MAT.2"} != set()
    assert next(corpora["eng"].documents("all")).text == "English MAT.1.1\nEnglish MAT.1.2"
    pairs = list(open_pairs("bible/deu-eng", "all"))
    assert len(pairs) == len(ids) - 3
    assert pairs[0] == ("Deutsch MAT.2.2", "English MAT.2.2")
    chapters = {right.split()[1].rpartition(".")[0] for _, right in open_pairs("bible/deu-eng", "train")}
    assert not chapters & held_out["eng"]


def test_dictionary_both_ways(data):
    data("dictionaries/en_fi.tsv.gz", "dog\tkoira\nbone\tluu\n")
    assert list(open_pairs("dictionary/en-fi")) == [("dog", "koira"), ("bone", "luu")]
    assert list(open_pairs("dictionary/fi-en")) == [("koira", "dog"), ("luu", "bone")]
    data("dictionaries/en_de.tsv.gz", "dog\tHund\nbroken line\n")
    with pytest.raises(UserError, match="line 2 has 1 field"):
        list(open_pairs("dictionary/en-de"))


def test_wikitext2_with_and_without_train(data):
    def articles(count, name):
        return " \n".join(
            f" \n = {name} {n} = \n \n Text of it . \n = = Part = = \n \n More ." for n in range(count)
        )

    data("wikitext2/valid.txt.gz", articles(20, "valid"))
    data("wikitext2/test.txt.gz", articles(3, "test"))
    corpus = open_corpus("wikitext2")
    counts = {split: count["documents"] for split, count in corpus.statistics().items()}
    assert counts == {"train": 18, "valid": 2, "test": 3}
    first = next(corpus.documents("train")).text
    assert first == "= valid 0 =\nText of it .\n= = Part = =\nMore ."
    data("wikitext2/train.txt", articles(5, "train"))
    whole = open_corpus("wikitext2")
    counts = {split: count["documents"] for split, count in whole.statistics().items()}
    assert counts == {"train": 5, "valid": 20, "test": 3}
    assert whole.fingerprint != corpus.fingerprint


def test_dated(data):
    data(
        "dated_presidential/speeches.jsonl.gz",
        '{"kind":"inaugural","year":1789,"speaker":"W","text":"Fellow"}\n',
    )
    (document,) = open_corpus("dated/presidential").documents("all")
    assert (document.text, document.metadata["year"]) == ("Fellow", 1789)


@pytest.fixture(scope="module")
def stdlib():
    """The two sets over the fourteenth part of the library, so that the test takes a second."""
    from warmstart.corpus.named import python_stdlib

    whole = python_stdlib.stdlib_files
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(python_stdlib, "stdlib_files", lambda root, code: whole(root, code=code)[::14])
        yield {name: open_corpus(f"python-stdlib/{name}") for name in ("docs", "code")}


def test_stdlib_docs_are_prose(stdlib):
    texts = list(stdlib["docs"].texts("all"))
    lines = [line for text in texts for line in text.split("\n")]
    assert len(lines) > 500
    assert not [line for line in lines if ">>>" in line or "Copyright (c)" in line or "coding:" in line]
    lower = sum(char.islower() for line in lines for char in line)
    assert lower > 0.7 * sum(map(len, lines))
    assert list(stdlib["docs"].texts("all")) == texts, "the same every time"


def test_stdlib_code_is_code_without_docstrings_and_comments(stdlib):
    for document in stdlib["code"].documents("all"):
        if "#" in document.id:
            continue  # the second part of a long module does not parse by itself
        tree = ast.parse(document.text) if len(document.text) < 190_000 else ast.Module([], [])
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
                multi_line = (ast.get_docstring(node, clean=False) or "").count("\n")
                assert not multi_line, document.id
        kinds = {token.type for token in tokenize.generate_tokens(StringIO(document.text).readline)}
        assert tokenize.COMMENT not in kinds, document.id


def test_stdlib_sets_share_no_line(stdlib):
    docs = {line for text in stdlib["docs"].texts("all") for line in text.split("\n")}
    code = {line.strip() for text in stdlib["code"].texts("all") for line in text.split("\n")}
    assert len(docs) > 500 and len(code) > 5000
    assert not docs & code
