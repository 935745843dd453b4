"""Remembering what was computed from a file, for as long as the file stays the same.

Kept in warmstart's cache folder, not beside the checkpoint: model folders may be read-only or shared. A file
counts as the same when its place, inode, size and both times are. As in git's index, a file changed within
the last two seconds is not remembered, because clocks are coarse.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from warmstart.foundation.errors import UserError
from warmstart.foundation.files import cache_home, sha256, write_atomic
from warmstart.foundation.settings import digest

_COARSE = 2.0


class Stamps:
    """Hashes and scan results of the files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._file = cache_home() / "files" / f"{digest(str(folder.resolve()))}.json"
        self._entries: dict[str, dict[str, Any]] = {}
        self._changed = False
        with contextlib.suppress(OSError, ValueError):
            loaded = json.loads(self._file.read_text(encoding="utf-8"))
            self._entries = loaded if isinstance(loaded, dict) else {}

    def sha256(self, file: Path) -> str:
        """Hex SHA-256 of a file, from memory if the file has not changed."""
        entry = self._entry(file)
        if "sha256" not in entry:
            self._set(file, "sha256", sha256(file))
        return str(self._entry(file).get("sha256") or sha256(file))

    def finite(self, file: Path) -> bool:
        """Whether the file was already found free of NaN and infinite values."""
        return bool(self._entry(file).get("finite"))

    def mark_finite(self, file: Path) -> None:
        """Remember that the file holds finite values only."""
        self._set(file, "finite", True)

    def save(self) -> None:
        """Write what is new; a cache that cannot be written is no error."""
        if not self._changed:
            return
        kept = {
            name: {k: v for k, v in entry.items() if k != "fresh"}
            for name, entry in self._entries.items()
            if not entry.get("fresh")
        }
        if not kept:
            return
        with contextlib.suppress(OSError, UserError):
            write_atomic(self._file, json.dumps(kept))

    def _entry(self, file: Path) -> dict[str, Any]:
        entry = self._entries.get(file.name, {})
        if entry.get("state") == _state(file):
            return entry
        return {}

    def _set(self, file: Path, key: str, value: object) -> None:
        state = _state(file)
        entry = self._entries.get(file.name, {})
        if entry.get("state") != state:
            entry = {"state": state, "fresh": time.time() - _touched(file) < _COARSE}
        self._entries[file.name] = {**entry, key: value}
        self._changed = True


def _state(file: Path) -> list[Any]:
    real = file.resolve()
    status = real.stat()
    return [str(real), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _touched(file: Path) -> float:
    status = file.stat()
    return max(status.st_mtime, status.st_ctime)
