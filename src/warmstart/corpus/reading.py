"""Which reader reads which file, which files a folder holds, and what they contain (their hash)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from warmstart.corpus.document import Document
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.streams import COMPRESSIONS, content_hash, stem_name
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import cache_home, write_atomic
from warmstart.foundation.registry import Registry
from warmstart.foundation.settings import digest


@dataclass(frozen=True)
class SourceFile:
    """One file to read.

    Attributes:
        path: Where it is.
        id: Its name in document ids: the path inside the opened folder, or the file name.
    """

    path: Path
    id: str

    @property
    def canonical(self) -> str:
        """`id` without a compression suffix: recompressing a file changes neither order nor fingerprint."""
        suffix = Path(self.id).suffix
        return self.id.removesuffix(suffix) if suffix.lower() in COMPRESSIONS else self.id


Reader = Callable[[SourceFile, CorpusSettings], Iterator[Document]]
"""Streams the documents of one file without blank texts; bad content raises `UserError` with its place."""

readers: Registry[Reader] = Registry("reader", "warmstart.corpus.readers")
"""All file readers. The tags `suffix:.jsonl` say which file names a reader takes."""


def suffixes() -> dict[str, str]:
    """File suffix (after a compression suffix) to reader name, for all registered readers."""
    return {
        tag.removeprefix("suffix:"): entry.name
        for entry in readers
        for tag in entry.tags
        if tag.startswith("suffix:")
    }


def reader_for(path: Path, settings: CorpusSettings) -> Reader:
    """The reader for a file by its name, or the one that `settings.reader` asks for."""
    if settings.reader is not None:
        return readers.get(settings.reader, where="reader").target
    known = suffixes()
    suffix = Path(stem_name(path)).suffix.lower()
    if suffix not in known:
        raise UserError(
            f"unknown file type {suffix or path.name!r}",
            where=path,
            fix="known are "
            + ", ".join(sorted(known))
            + ", each also with .gz or .zst; or name a reader with reader: txt",
        )
    return readers.get(known[suffix]).target


def find_files(root: Path, settings: CorpusSettings) -> list[SourceFile]:
    """The file itself, or all readable files under a folder, sorted by name.

    In a folder, hidden files and files of unknown types (a README, pictures) are passed over, unless
    `settings.reader` is given. A folder without any readable file is a `UserError`.
    """
    if not root.is_dir():
        return [SourceFile(root, root.name)]
    known = suffixes()
    found, passed_over = [], []
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        if not path.is_file() or any(part.startswith((".", "__")) for part in parts):
            continue
        if settings.reader is not None or Path(stem_name(path)).suffix.lower() in known:
            found.append(SourceFile(path, "/".join(parts)))
        else:
            passed_over.append("/".join(parts))
    if not found:
        seen = f"; it holds {', '.join(sorted(passed_over)[:3])}" if passed_over else ""
        raise UserError(
            f"the folder has no text to read{seen}",
            where=root,
            fix="put files of these types into it: " + ", ".join(sorted(known)),
        )
    return sorted(found, key=lambda file: (file.canonical, file.id))


def read_files(files: list[SourceFile], settings: CorpusSettings) -> Iterator[Document]:
    """All documents of all files, one file after the other."""
    for file in files:
        yield from reader_for(file.path, settings)(file, settings)


def files_digest(files: list[SourceFile]) -> str:
    """Hash of the names, sizes and decompressed contents of files: equal on every machine."""
    return digest([[file.canonical, *file_hash(file.path)] for file in files])


REMEMBER_BYTES = 1 << 20
"""Files below this are hashed anew each time, which costs no more than looking up what is remembered."""


def file_hash(path: Path) -> tuple[str, int]:
    """[`content_hash`][warmstart.corpus.streams.content_hash], remembered while name, size and mtime stay.

    A file that changed less than two seconds before it was hashed is not remembered: it could change again
    within the resolution of its mtime.
    """
    status = path.stat()
    if status.st_size < REMEMBER_BYTES:
        return content_hash(path)
    state = [str(path.absolute()), status.st_size, status.st_mtime_ns, status.st_ino]
    memory = cache_home() / "hashes" / f"{digest(state[0])}.json"
    try:
        known = json.loads(memory.read_text())
        if known["state"] == state:
            return str(known["sha256"]), int(known["size"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    value, size = content_hash(path)
    if time.time() - status.st_mtime > 2:
        with contextlib.suppress(UserError):  # a cache that cannot be written costs time, nothing else
            write_atomic(memory, json.dumps({"state": state, "sha256": value, "size": size}))
    return value, size
