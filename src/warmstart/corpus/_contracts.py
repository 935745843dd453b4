"""What every file reader and every named set must do."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from warmstart.corpus.document import Document
from warmstart.corpus.named_set import NamedSet, datasets
from warmstart.corpus.reading import Reader, SourceFile, files_digest, readers
from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.contracts import Suite
from warmstart.foundation.errors import UserError
from warmstart.foundation.registry import Entry

reader_checks = Suite("reader", readers)
dataset_checks = Suite("dataset", datasets)
_TEXTS = ["The first document, in English.", "Größe, naïve, 你好 and 🙂.", "A third one with a number: 42."]


@reader_checks.check()
def claims_a_suffix(entry: Entry[Reader]) -> None:
    """A tag `suffix:.…` says which files it reads, and no other reader claims the same."""
    mine = {tag for tag in entry.tags if tag.startswith("suffix:.")}
    assert mine, "no tag of the form suffix:.xyz"
    for other in readers:
        if other.name != entry.name:
            assert not mine & other.tags, f"{sorted(mine & other.tags)} is also claimed by {other.name}"


@reader_checks.check()
def streams_documents(entry: Entry[Reader]) -> None:
    """Gives the documents one by one, with ids that start with the file's, and the same ones every time."""

    def look(file: SourceFile, settings: CorpusSettings) -> None:
        stream = entry.target(file, settings)
        assert iter(stream) is iter(stream), "not an iterator: all documents would be in memory at once"
        first, second = list(stream), list(entry.target(file, settings))
        assert first, "nothing was read"
        assert all(isinstance(document, Document) for document in first)
        assert [d.text for d in first] == [d.text for d in second], "two readings differ"
        assert all(d.id.startswith(file.id) for d in first), f"an id does not start with {file.id}"
        assert len({d.id for d in first}) == len(first), "two documents share an id"
        assert all(d.text.strip() for d in first), "a blank document was given"
        whole = "\n".join(d.text for d in first)
        missing = [text for text in _TEXTS if text not in whole]
        assert not missing, f"lost text: {missing}"

    _with_sample(entry, look)


@reader_checks.check()
def leaves_the_file_alone(entry: Entry[Reader]) -> None:
    """Reading changes neither the file nor its fingerprint."""

    def look(file: SourceFile, settings: CorpusSettings) -> None:
        before, mark = file.path.read_bytes(), files_digest([file])
        for _ in entry.target(file, settings):
            pass
        assert file.path.read_bytes() == before, "the file was changed"
        assert files_digest([file]) == mark, "the fingerprint changed"

    _with_sample(entry, look)


@reader_checks.check()
def reads_compressed_files_alike(entry: Entry[Reader]) -> None:
    """A .gz of the file gives the same texts and the same fingerprint."""
    import gzip

    def look(file: SourceFile, settings: CorpusSettings) -> None:
        packed = file.path.with_name(file.path.name + ".gz")
        packed.write_bytes(gzip.compress(file.path.read_bytes()))
        other = SourceFile(packed, packed.name)
        plain = [d.text for d in entry.target(file, settings)]
        assert [d.text for d in entry.target(other, settings)] == plain, "the .gz reads differently"
        assert files_digest([other]) == files_digest([file]), "the .gz has another fingerprint"

    _with_sample(entry, look)


@reader_checks.check()
def refuses_bytes_that_are_no_text(entry: Entry[Reader]) -> None:
    """A file of random bytes is a `UserError` that names the file, not a traceback and not documents."""
    noise = bytes((i * 73 + (i >> 3) * 151) % 256 for i in range(4096))
    _refuses(entry, noise)


@reader_checks.check()
def empty_file_has_no_documents(entry: Entry[Reader]) -> None:
    """An empty file gives no documents, or a `UserError` that names it; nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"empty{_suffix(entry)}"
        path.write_bytes(b"")
        try:
            assert not list(entry.target(SourceFile(path, path.name), CorpusSettings(path=str(path))))
        except UserError as error:
            assert path.name in error.sentence, f"the file is not named: {error.sentence}"


@dataset_checks.check()
def lists_its_members(entry: Entry[type[NamedSet]]) -> None:
    """Names its members without touching a file or the network, and has at least one."""
    family = entry.target()
    members = [*family.corpora(), *family.parallel()]
    assert members, "no member can be opened"
    assert len(set(members)) == len(members), "two members share a name"
    assert members == [*family.corpora(), *family.parallel()], "the list changes"


def _suffix(entry: Entry[Any]) -> str:
    return min(tag.removeprefix("suffix:") for tag in entry.tags if tag.startswith("suffix:"))


def _refuses(entry: Entry[Reader], data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"broken{_suffix(entry)}"
        path.write_bytes(data)
        settings = CorpusSettings(path=str(path))
        try:
            got = list(itertools.islice(entry.target(SourceFile(path, path.name), settings), 3))
        except UserError as error:
            assert path.name in error.sentence, f"the file is not named: {error.sentence}"
        else:
            raise AssertionError(f"bytes that are no text were read as {got[:1]!r}")


def _with_sample(entry: Entry[Reader], look: Callable[[SourceFile, CorpusSettings], None]) -> None:
    """Run `look` on a small valid file of the reader's kind (see `_write`)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"sample{_suffix(entry)}"
        _write(path, entry)
        look(SourceFile(path, path.name), CorpusSettings(path=str(path)))


def _write(path: Path, entry: Entry[Reader]) -> None:
    """Write the three sample texts. A reader of another format supplies `write_sample(path, texts)` itself,
    as an attribute of the function that it registers."""
    own = getattr(entry.target, "write_sample", None)
    if own is not None:
        own(path, _TEXTS)
    elif path.suffix in (".parquet", ".pq"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"text": _TEXTS}), path)
    elif path.suffix in (".jsonl", ".ndjson", ".json"):
        import json

        path.write_text("".join(json.dumps({"text": t}) + "\n" for t in _TEXTS), encoding="utf-8")
    elif "fields" in entry.tags:
        import csv

        with path.open("w", encoding="utf-8", newline="") as file:
            if path.suffix == ".tsv":
                file.write("".join(line + "\n" for line in ["text", *_TEXTS]))
            else:
                csv.writer(file).writerows([["text"], *([t] for t in _TEXTS)])
    else:
        path.write_text("\n".join(_TEXTS) + "\n", encoding="utf-8")
