"""Append-only measurements of a run: one JSON object per line, readable while it is being written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from warmstart.foundation.files import disk_errors


class EventLog:
    """`events.jsonl` of one run.

    A line that a killed process left unfinished is ignored when reading and cut off before appending.
    `position` and `rewind` let a resumed run drop what was measured after its last checkpoint, so that the
    log of an interrupted run equals the log of an uninterrupted one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, **fields: Any) -> None:
        """Write one event and flush it to the system."""
        line = json.dumps({"event": kind, **fields}, ensure_ascii=False, allow_nan=False) + "\n"
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._trim()
            with self.path.open("ab") as file:
                file.write(line.encode())

    def read(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """All whole events, or those of one kind, oldest first."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    event = json.loads(line)
                    if kind is None or event["event"] == kind:
                        yield event

    def position(self) -> int:
        """Bytes written so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def rewind(self, position: int) -> None:
        """Drop everything after `position`."""
        if self.path.exists() and self.position() > position:
            os.truncate(self.path, position)

    def _trim(self) -> None:
        if not self.path.exists() or not (size := self.path.stat().st_size):
            return
        with self.path.open("rb") as file:
            file.seek(size - 1)
            if file.read(1) == b"\n":
                return
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
        os.truncate(self.path, whole)
