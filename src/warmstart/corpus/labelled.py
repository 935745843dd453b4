"""Labelled texts by name: what classifiers and probes learn from and are tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from warmstart.corpus.corpus import missing_path, open_corpus
from warmstart.corpus.data_files import DataFile
from warmstart.corpus.named_set import dataset_names
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.splitting import ALIASES, SPLITS, Split, split_of
from warmstart.corpus.tables import rows
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import digest

VALID_FRACTION = 0.1
TEST_FRACTION = 0.2
"""Held-out shares. Larger than a corpus's own (0.05), which lie inside them: a model that was trained on the
`train` part of the same corpus has never read what is held out there."""

_KINDS_OF_BOOKS = {
    "gospel": "MAT MAR LUK JOH",
    "acts": "ACT",
    "letter": "ROM 1CO 2CO GAL EPH PHI COL 1TH 2TH 1TI 2TI TIT PHM HEB JAM 1PE 2PE 1JO 2JO 3JO JUD",
    "vision": "REV",
}
_KIND_OF = {book: kind for kind, books in _KINDS_OF_BOOKS.items() for book in books.split()}
_LANGUAGES = ("eng", "deu", "fin", "swa", "zul", "ara")
_SNIPPET = 400
_MIN_SNIPPETS = 30
_TOPICS = {"1": "world", "2": "sports", "3": "business", "4": "science"}


class Labelled(NamedTuple):
    """Texts and their labels, in reading order; `texts, labels = labelled(…)`."""

    texts: list[str]
    labels: list[str]


class _Row(NamedTuple):
    text: str
    label: str
    key: str
    """What the split is drawn from."""
    split: str | None = None
    """Official split where there is one."""


def labelled_names() -> list[str]:
    """Every name that [`labelled`][warmstart.corpus.labelled.labelled] takes beside files."""
    return sorted(_SETS)


def labelled(name: str, split: Split = "train") -> Labelled:
    """Labelled texts of one split.

    Named sets:

    - `bible/<language>`: verses of the New Testament, labelled by the kind of book they stand in (`gospel`,
      `acts`, `letter`, `vision`); `bible-book/<language>`: by the book. Splits are drawn by chapter, the same
      in every language: what is held out in one is held out in all, so a classifier of one may be tested on
      another.
    - `languages`: verses labelled by their language (six of them, two scripts).
    - `python-stdlib/package`: snippets of code of at least 400 characters, labelled by the package that the
      module belongs to. Splits are drawn by module; packages with too few to learn from are left out.
    - `sst2`, `trec`, `trec-fine`, `subj`, `ag-news`: sentiment, type of question (coarse, fine), subjectivity
      and news topic; only from the local data folder. Official splits are used where they exist.

    Where there is no official split, a text goes where the hash of its key says
    ([`split_of`][warmstart.corpus.splitting.split_of], seed 0), a fifth to `test` and a tenth to `valid`.
    Labels that the train split does not hold are left out of the others.

    Args:
        name: A named set, or a .tsv, .csv, .jsonl or .parquet file with the fields `text` and `label`.
        split: `train`, `valid`, `test` or `all`.

    Raises:
        UserError: Nothing of that name, no such split, fewer than two labels, or a split without texts.
    """
    split = ALIASES.get(split, split)  # type: ignore[assignment]
    if split not in (*SPLITS, "all"):
        raise UserError(f"unknown split {split!r}", where=name, fix=nearest(split, (*SPLITS, "all")))
    divided = [(row, row.split or _split(row.key)) for row in _read(name)]
    cut_out = {place for _, place in divided}
    if "valid" not in cut_out:  # official splits without it: out of train
        divided = [
            (row, "valid" if place == "train" and _split(row.key) == "valid" else place)
            for row, place in divided
        ]
    known = {row.label for row, place in divided if place == "train"}
    if len(known) < 2:
        raise UserError(
            f"the train split holds {len(known)} label(s), and telling apart needs two",
            where=name,
            fix="give texts of at least two labels",
        )
    chosen = [row for row, place in divided if split in (place, "all") and row.label in known]
    if not chosen:
        raise UserError(f"the {split} split holds no text", where=name, fix="give more texts")
    return Labelled([row.text for row in chosen], [row.label for row in chosen])


def labelled_fingerprint(name: str) -> str:
    """Hash of all texts, labels and splits of a set (16 hex digits)."""
    return digest(["labelled", VALID_FRACTION, TEST_FRACTION, [list(row) for row in _read(name)]])


def _split(key: str) -> str:
    return split_of(key, seed=0, valid_fraction=VALID_FRACTION, test_fraction=TEST_FRACTION)


def _read(name: str) -> Iterator[_Row]:
    if Path(name).expanduser().is_file():
        return _file(name)
    if name in _SETS:
        return _SETS[name]()
    if Path(name).suffix:
        raise missing_path(name)
    raise UserError(f"no labelled texts are called {name!r}", fix=nearest(name, labelled_names()))


def _file(name: str) -> Iterator[_Row]:
    settings = CorpusSettings(path=name, metadata_fields=("label",), max_held_out_bytes=None)
    for document in open_corpus(settings).documents("all"):
        yield _Row(document.text, str(document.metadata["label"]), document.text)


def _verses(language: str) -> Iterator[tuple[str, str, str]]:
    """Book, text and key of each verse of the New Testament."""
    settings = CorpusSettings(path=f"bible/{language}", max_held_out_bytes=None)
    for chapter in open_corpus(settings).documents("all"):
        book = chapter.id.rpartition(":")[2].partition(".")[0]
        if book in _KIND_OF:
            yield from ((book, verse, chapter.key) for verse in chapter.text.split("\n") if verse)


def _by_kind(language: str) -> Iterator[_Row]:
    return (_Row(text, _KIND_OF[book], key) for book, text, key in _verses(language))


def _by_book(language: str) -> Iterator[_Row]:
    return (_Row(text, book, key) for book, text, key in _verses(language))


def _by_language() -> Iterator[_Row]:
    for language in _LANGUAGES:
        yield from (_Row(text, language, key) for _, text, key in _verses(language))


def _by_package() -> Iterator[_Row]:
    """Snippets of consecutive paragraphs; a package is a folder of the library."""
    found: dict[str, list[_Row]] = {}
    settings = CorpusSettings(path="python-stdlib/code", max_held_out_bytes=None)
    for module in open_corpus(settings).documents("all"):
        package, slash, _ = module.id.partition("/")
        if slash:
            key = module.key or module.text
            found.setdefault(package, []).extend(_Row(text, package, key) for text in _snippets(module.text))
    for _, snippets in sorted(found.items()):
        if sum(_split(row.key) == "train" for row in snippets) >= _MIN_SNIPPETS:
            yield from snippets


def _snippets(code: str) -> Iterator[str]:
    """Runs of whole blocks, cut where an unindented line begins, of at least `_SNIPPET` characters."""
    gathered: list[str] = []
    size = -1  # of the lines joined
    for line in code.split("\n"):
        if size >= _SNIPPET and line[:1].strip():
            yield "\n".join(gathered)
            gathered, size = [], -1
        gathered.append(line)
        size += len(line) + 1
    if size >= _SNIPPET:
        yield "\n".join(gathered)


def _table(
    folder: str, files: dict[str | None, str], text: tuple[int, ...], label: int, *, header: bool
) -> Callable[[], Iterator[_Row]]:
    """Rows of a set's own tables: official split (None where there is none) to file, and the columns."""

    def read() -> Iterator[_Row]:
        for split, file in files.items():
            path = DataFile(folder, f"{file}.tsv.gz").locate().path
            for i, (_, row) in enumerate(rows(path, "\t", quoted=False, encoding="utf-8")):
                if i or not header:
                    whole = " ".join(row[column].strip() for column in text)
                    yield _Row(whole, row[label].strip(), whole, split)

    return read


def _named(rows_of: Callable[[], Iterator[_Row]], names: dict[str, str]) -> Callable[[], Iterator[_Row]]:
    """The same rows with labels that a person can read."""
    return lambda: (row._replace(label=names[row.label]) for row in rows_of())


def _with(read: Callable[[str], Iterator[_Row]], language: str) -> Callable[[], Iterator[_Row]]:
    return lambda: read(language)


_BIBLES = sorted(
    {name.split("/")[1] for name in dataset_names() if name.startswith("bible/")} & {*_LANGUAGES, "eng-kjv"}
)
_TREC: dict[str | None, str] = {"train": "train", "test": "test"}
_SETS: dict[str, Callable[[], Iterator[_Row]]] = {
    **{f"bible/{language}": _with(_by_kind, language) for language in _BIBLES},
    **{f"bible-book/{language}": _with(_by_book, language) for language in _BIBLES},
    "languages": _by_language,
    "python-stdlib/package": _by_package,
    "sst2": _named(
        _table("cls_sst2", {"train": "train", "valid": "dev", "test": "test"}, (0,), 1, header=False),
        {"0": "negative", "1": "positive"},
    ),
    "trec": _table("cls_trec", _TREC, (2,), 0, header=True),
    "trec-fine": _table("cls_trec", _TREC, (2,), 1, header=True),
    "subj": _named(
        _table("cls_subj", {None: "subj"}, (1,), 0, header=True), {"0": "objective", "1": "subjective"}
    ),
    "ag-news": _named(_table("cls_ag_news", {None: "ag_news_7600"}, (1, 2), 0, header=True), _TOPICS),
}
