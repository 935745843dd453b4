"""Files of named sets: in the folder `WARMSTART_DATA`, else downloaded from their origin and checked."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from warmstart.corpus.download import download
from warmstart.corpus.reading import SourceFile
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import cache_home, write_atomic


@dataclass(frozen=True)
class DataFile:
    """One file of a named set.

    Attributes:
        folder: Folder below `WARMSTART_DATA`.
        local: File name in that folder, with `.gz` or without.
        urls: Public origin, pinned to a commit; several where the origin has one file per part. Empty where
            there is nothing to download.
        sha256: Hash of the downloaded file or, with `convert`, of what it is converted to.
        convert: Makes the set's own format from the downloaded files.
    """

    folder: str
    local: str
    urls: tuple[str, ...] = ()
    sha256: str = ""
    convert: Callable[[list[Path]], str] | None = None

    def here(self) -> SourceFile | None:
        """The file in the local data folder, if it is there (plain or with `.gz`)."""
        if not (root := os.environ.get("WARMSTART_DATA")):
            return None
        path = Path(root).expanduser() / self.folder / self.local
        for candidate in (
            path,
            path.with_suffix("") if path.suffix == ".gz" else path.with_name(path.name + ".gz"),
        ):
            if candidate.is_file():
                return SourceFile(candidate, self.local)
        return None

    def locate(self) -> SourceFile:
        """The local file, else the downloaded one; `UserError` saying how to get it when neither can be had.

        Its id is the local name and its content the same in both cases, so fingerprints agree.
        """
        if found := self.here():
            return found
        root = os.environ.get("WARMSTART_DATA")
        name = f"{self.folder}/{self.local}"
        if not self.urls:
            raise UserError(
                f"the data file {name} is not on this machine",
                where=f"WARMSTART_DATA={root}" if root else None,
                fix=f"set WARMSTART_DATA to the folder that holds {self.folder}; it cannot be downloaded",
            )
        store = cache_home() / "data" / self.folder
        if self.convert is None:
            target = store / _file_name(self.urls[0])
            return SourceFile(download(self.urls[0], self.sha256, target, name=name), self.local)
        converted = store / self.local.removesuffix(".gz")
        if not (converted.is_file() and _sha256(converted.read_bytes()) == self.sha256):
            self._convert_to(converted, name)
        return SourceFile(converted, self.local)

    def _convert_to(self, converted: Path, name: str) -> None:
        assert self.convert is not None
        parts = converted.parent / f"{converted.stem}.parts"
        files = [download(url, None, parts / _file_name(url), name=name) for url in self.urls]
        text = self.convert(files)
        if _sha256(text.encode()) != self.sha256:
            for file in files:
                file.unlink()
            raise UserError(
                "the download is not what it was when this set was added (wrong SHA-256)",
                where=name,
                fix=f"try again, or set WARMSTART_DATA to a folder that holds {name}",
            )
        write_atomic(converted, text)


def hash_table(text: str) -> dict[str, str]:
    """File name to SHA-256, from lines of the two."""
    return dict(line.split() for line in text.strip().splitlines())


def _file_name(url: str) -> str:
    return re.sub(r"[^\w.-]", "_", url.rsplit("/", 1)[-1])


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
