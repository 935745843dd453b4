"""Plain text: one document per file, line or paragraph."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from warmstart.corpus.document import Document
from warmstart.corpus.reading import SourceFile, readers
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.streams import open_binary, text_lines
from warmstart.foundation.errors import UserError

HEAD = 1 << 16
"""Bytes looked at to guess the unit."""

_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")


@readers.register("txt", title="Plain text", tags=("suffix:.txt", "suffix:.text"))
def read_txt(file: SourceFile, settings: CorpusSettings) -> Iterator[Document]:
    """Read a text file as documents of `settings.unit`.

    Units shorter than `min_characters` are joined with the following ones of the file. Anything longer than
    `max_document_characters` is cut at a line end or space, so that a giant line never has to fit in memory.
    The parts of a whole file (`unit: file`) share a `key` and so fall in the same split; the parts of a giant
    line do not, because a corpus that is one line could not be divided otherwise.

    Raises:
        UserError: A line is longer than `max_document_characters` and the unit was only guessed: most often
            the line ends of such a file were lost, and its "documents" would be arbitrary.
    """
    unit = guess_unit(file.path, settings.encoding) if settings.unit == "auto" else settings.unit
    for number, (text, line) in enumerate(_units(file.path, unit, settings), start=1):
        if unit == "file":
            if number == 1:
                key = hashlib.sha256(text.encode()).hexdigest()
            yield Document(text, file.id if number == 1 else f"{file.id}#{number}", key=key)
        else:
            yield Document(text, f"{file.id}:{line}")


def guess_unit(path: Path, encoding: str) -> str:
    """`paragraph` where the first 64 kilobytes have a blank line between two others, else `line`."""
    with open_binary(path) as stream:
        head = stream.read(HEAD)
    try:
        text = head.decode(encoding, errors="ignore")
    except LookupError:  # told properly by the reader
        return "line"
    return "paragraph" if _BLANK_LINE.search(text.strip()) else "line"


def _units(path: Path, unit: str, settings: CorpusSettings) -> Iterator[tuple[str, str]]:
    """Non-blank units as `(text, id of the first line)`, each within the longest permitted length."""
    limit, least = settings.max_document_characters, settings.min_characters
    held: list[str] = []
    size, first, within = 0, "", False
    part, last_number = 0, 0

    def flush() -> Iterator[tuple[str, str]]:
        nonlocal held, size, within
        text = "".join(held).strip("\n")
        held, size, within = [], 0, False
        if text.strip():
            yield text, first

    for number, text, whole in text_lines(path, settings.encoding, limit):
        if not whole and settings.unit == "auto":
            raise UserError(
                f"line {number:,} is longer than {limit:,} characters: are its line ends lost?",
                where=path,
                fix=f"break it into lines, or set unit: {unit} to have it cut at spaces into documents",
            )
        part = part + 1 if number == last_number else 1
        last_number = number
        if not text.strip() and whole and part == 1:
            if unit == "paragraph" and within:
                if size >= least:
                    yield from flush()
                else:
                    held.append("\n")
                    size, within = size + 1, False
            elif unit == "file" and held:
                held.append("\n")
                size += 1
            continue
        if held and size + len(text) > limit:
            yield from flush()
        if not held:
            first = f"{number}" if part == 1 else f"{number}.{part}"
        held.append(text + "\n" if whole else text)
        size, within = size + len(text) + whole, True
        if not whole or (unit == "line" and size >= least):
            yield from flush()
    yield from flush()
