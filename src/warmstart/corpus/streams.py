"""Text out of plain and compressed files, in bounded memory and with errors that name the byte."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from warmstart.foundation.errors import UserError

CHUNK = 1 << 20
"""Bytes read at a time."""

LINE_LIMIT = 64 << 20
"""Characters above which a line of a format that cannot be cut (.jsonl, .csv) is refused."""

COMPRESSIONS = (".gz", ".zst")


def stem_name(path: Path) -> str:
    """File name without its compression suffix: `a.jsonl.gz` → `a.jsonl`."""
    return path.stem if path.suffix.lower() in COMPRESSIONS else path.name


@contextlib.contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """The decompressed bytes of `path`; damage found while reading becomes a `UserError`."""
    import zstandard

    try:
        with path.open("rb") as raw:
            suffix = path.suffix.lower()
            if suffix == ".gz":
                with gzip.open(raw) as stream:
                    yield cast(IO[bytes], stream)
            elif suffix == ".zst":
                with zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True) as stream:
                    yield cast(IO[bytes], stream)
            else:
                yield raw
    except (gzip.BadGzipFile, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise UserError(
            f"the compressed file is damaged or cut off ({error})",
            where=path,
            fix="copy or download it again",
        ) from None
    except PermissionError:
        raise UserError("the file cannot be read", where=path, fix="check its permissions") from None


def content_hash(path: Path) -> tuple[str, int]:
    """SHA-256 and size of the decompressed bytes, so that recompressing a file changes nothing."""
    total, size = hashlib.sha256(), 0
    with open_binary(path) as stream:
        while chunk := stream.read(CHUNK):
            total.update(chunk)
            size += len(chunk)
        if path.suffix.lower() == ".zst":
            _refuse_cut_off_zst(path)
    return total.hexdigest(), size


def text_chunks(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """The text of a file in pieces of about a megabyte, line ends as `\\n`, without a byte-order mark.

    Raises:
        UserError: Bytes that are not text in `encoding`, or NUL bytes, with their offset in the decompressed
            file and the setting that mends it; an unknown encoding; a damaged compressed file.
    """
    try:
        "x".encode(encoding)  # refuses codecs that are no text encoding, such as hex
        name = codecs.lookup(encoding).name
    except LookupError:
        raise UserError(
            f"{encoding!r} is no text encoding", where=path, fix="use a name such as utf-8, latin-1 or utf-16"
        ) from None
    decoder = codecs.getincrementaldecoder("utf-8-sig" if name == "utf-8" else name)()
    newlines = io.IncrementalNewlineDecoder(decoder, translate=True)
    consumed = 0
    with open_binary(path) as stream:
        while True:
            chunk = stream.read(CHUNK)
            if not consumed and name == "utf-8" and chunk[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise UserError("the file is UTF-16, not UTF-8", where=path, fix="set encoding: utf-16")
            consumed += len(chunk)
            try:
                text = newlines.decode(chunk, final=not chunk)
            except UnicodeError as error:
                raise _undecodable(error, path, encoding, consumed) from None
            if "\x00" in text:
                start = consumed - len(chunk)
                at = f" at byte {start + chunk.index(0):,}" if 0 in chunk and "utf-16" not in name else ""
                raise UserError(
                    f"the file is binary, not text (a NUL{at})",
                    where=path,
                    fix="give a text file; for UTF-16 text set encoding: utf-16",
                )
            if text:
                yield text
            if not chunk:
                if path.suffix.lower() == ".zst":
                    _refuse_cut_off_zst(path)
                return


def text_lines(
    path: Path, encoding: str = "utf-8", limit: int = LINE_LIMIT
) -> Iterator[tuple[int, str, bool]]:
    """Lines without their ends, as `(line number from 1, text, whole)`.

    A line of more than `limit` characters comes in several pieces, of which all but the last have
    `whole=False`; pieces end after a space where the last tenth of the piece has one. Memory stays within
    a few times `limit`.
    """
    number, held, size = 1, [], 0
    for chunk in text_chunks(path, encoding):
        start = 0
        while (end := chunk.find("\n", start)) >= 0 or start < len(chunk):
            stop = end if end >= 0 else len(chunk)
            held.append(chunk[start:stop])
            size += stop - start
            if size > limit:
                text = "".join(held)
                while len(text) > limit:
                    cut = cut_point(text, limit)
                    yield number, text[:cut], False
                    text = text[cut:]
                held, size = [text], len(text)
            if end < 0:
                break
            yield number, "".join(held), True
            number, held, size, start = number + 1, [], 0, end + 1
    if size:
        yield number, "".join(held), True


def whole_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """Lines of a format that cannot be cut; one longer than `LINE_LIMIT` is a `UserError`."""
    for number, text, whole in text_lines(path, encoding):
        if not whole:
            raise UserError(
                f"line {number:,} is longer than {LINE_LIMIT:,} characters",
                where=path,
                fix="one record per line is expected; if it is one big JSON array, write it as .jsonl",
            )
        yield number, text


def cut_point(text: str, limit: int) -> int:
    """Where to cut `text` so that the first part has at most `limit` characters and ends a line or word."""
    low = limit - limit // 10
    for mark in ("\n", " "):
        if (at := text.rfind(mark, low, limit)) >= 0:
            return at + 1
    return limit


def _undecodable(error: UnicodeError, path: Path, encoding: str, consumed: int) -> UserError:
    if not isinstance(error, UnicodeDecodeError):
        return UserError(f"the file is not {encoding} text ({error})", where=path, fix="set encoding: …")
    # error.object also holds the undecoded bytes that the decoder kept from the chunk before
    offset, byte = consumed - len(error.object) + error.start, error.object[error.start]
    control = sum(b < 9 or 13 < b < 32 for b in error.object[:4096])
    if control > 0.02 * min(len(error.object), 4096):
        fix = "it looks like binary data; give a text file"
    else:
        c1 = any(0x80 <= b < 0xA0 for b in error.object)
        guess = "cp1252" if c1 else "latin-1"
        fix = f"set encoding: {guess} if the text is Western European, or convert the file to UTF-8"
    return UserError(f"byte 0x{byte:02x} at offset {offset:,} is not valid {encoding}", where=path, fix=fix)


def _refuse_cut_off_zst(path: Path) -> None:
    """The streaming reader ends silently inside an unfinished frame; so walk the frames' block headers."""
    with path.open("rb") as file:
        while head := file.read(4):
            magic = int.from_bytes(head, "little")
            if 0x184D2A50 <= magic <= 0x184D2A5F:  # skippable frame: length, then that many bytes
                file.seek(int.from_bytes(_exactly(file, 4, path), "little"), 1)
                continue
            descriptor = _exactly(file, 1, path)[0]
            single, size_flag = bool(descriptor & 0x20), descriptor >> 6
            size_bytes = (1 if single else 0, 2, 4, 8)[size_flag]
            _exactly(file, (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3] + size_bytes, path)
            last = False
            while not last:
                block = int.from_bytes(_exactly(file, 3, path), "little")
                last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
                _exactly(file, 1 if kind == 1 else size, path)
            if descriptor & 4:
                _exactly(file, 4, path)


def _exactly(file: IO[bytes], count: int, path: Path) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise UserError("the compressed file is cut off", where=path, fix="copy or download it again")
    return data
