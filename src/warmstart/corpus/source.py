"""Where documents come from: one small interface behind files, named sets and hub datasets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from warmstart.corpus.document import Document
from warmstart.corpus.reading import SourceFile, files_digest, find_files, read_files
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.splitting import ALIASES, SPLITS
from warmstart.corpus.streams import stem_name
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import digest


@dataclass(frozen=True)
class Source:
    """A readable origin of documents.

    Attributes:
        name: What a person calls it.
        read: Streams the documents of one official split, or all of them for `None`. Called once per pass.
        fingerprint: Hash of the content, equal on every machine; computed on demand.
        splits: Official splits in reading order (`"train"`, `"valid"`, `"test"`); empty where the documents
            are to be divided by hash.
        language: Language code where it is known.
        num_bytes: Rough number of bytes to read, for progress; 0 when unknown.
    """

    name: str
    read: Callable[[str | None], Iterator[Document]]
    fingerprint: Callable[[], str]
    splits: tuple[str, ...] = ()
    language: str | None = None
    num_bytes: int = 0


def file_source(
    name: str, files: list[SourceFile], settings: CorpusSettings, **details: str | None
) -> Source:
    """Files without official splits, read with the settings."""
    return Source(
        name,
        lambda _split: read_files(files, settings),
        lambda: files_digest(files),
        num_bytes=_size(files),
        language=settings.language or details.get("language"),
    )


def split_source(
    name: str, files: dict[str, list[SourceFile]], settings: CorpusSettings, language: str | None = None
) -> Source:
    """Files that belong to official splits: split name to its files."""
    order = tuple(split for split in SPLITS if split in files)

    def read(split: str | None) -> Iterator[Document]:
        for name in order if split is None else (split,):
            for document in read_files(files[name], settings):
                document.metadata["split"] = name
                yield document

    return Source(
        name,
        read,
        lambda: digest({split: files_digest(files[split]) for split in order}),
        order,
        settings.language or language,
        sum(_size(group) for group in files.values()),
    )


def open_files(path: Path, settings: CorpusSettings) -> Source:
    """A file or folder. Files all named after splits (`train.txt`, `valid-00.txt`) are official splits."""
    files = find_files(path, settings)
    by_split: dict[str, list[SourceFile]] = {}
    for file in files:
        by_split.setdefault(_split_in_name(file.path), []).append(file)
    official = "" not in by_split and "train" in by_split and len(by_split) > 1
    if official:
        return split_source(path.name, by_split, settings)
    return file_source(path.name, files, settings)


def only(source: Source, split: str) -> Source:
    """One official split of a source, as a source without splits."""
    wanted = ALIASES.get(split, split)
    if wanted not in source.splits:
        fix = (
            nearest(split, source.splits) if source.splits else "it has no official splits; leave split away"
        )
        raise UserError(f"there is no split {split!r}", where=source.name, fix=fix)
    return replace(
        source,
        read=lambda _split: source.read(wanted),
        fingerprint=lambda: digest([source.fingerprint(), wanted]),
        splits=(),
    )


def joined(sources: list[Source]) -> Source:
    """Several sources as one, read one after the other; either all have official splits or none has."""
    first = sources[0]
    if len({bool(source.splits) for source in sources}) > 1:
        fixed = next(source.name for source in sources if source.splits)
        raise UserError(
            "texts with and without official splits cannot be joined",
            where=", ".join(source.name for source in sources),
            fix=f"read {fixed} with split: train, or alone",
        )

    def read(split: str | None) -> Iterator[Document]:
        for source in sources:
            if split is None or split in source.splits:
                yield from source.read(split)

    languages = {source.language for source in sources}
    return Source(
        "+".join(source.name for source in sources),
        read,
        lambda: digest([source.fingerprint() for source in sources]),
        tuple(split for split in SPLITS if any(split in source.splits for source in sources)),
        first.language if len(languages) == 1 else None,
        sum(source.num_bytes for source in sources),
    )


def _split_in_name(path: Path) -> str:
    stem = Path(stem_name(path)).stem.lower()
    for word in (*SPLITS, *ALIASES):
        if stem == word or (stem.startswith(word) and not stem[len(word)].isalpha()):
            return ALIASES.get(word, word)
    return ""


def _size(files: list[SourceFile]) -> int:
    return sum(file.path.stat().st_size for file in files)
