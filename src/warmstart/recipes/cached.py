"""What finished and interrupted steps take of the disk, and how to be rid of them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from warmstart.foundation.errors import UserError
from warmstart.foundation.files import cache_home, lock

_DAY = 86_400


@dataclass(frozen=True)
class CachedStep:
    """One step's folder.

    Attributes:
        folder: `<cache>/<type>-<hash>`.
        type: Of the step.
        finished: Whether it is done; another one is taken up where it stood.
        used: When it was last made or asked for, in seconds since 1970.
        size: Bytes on the disk.
    """

    folder: Path
    type: str
    finished: bool
    used: float
    size: int

    @property
    def idle_days(self) -> float:
        """Days since it was last used."""
        return max(0.0, time.time() - self.used) / _DAY


def cached_steps(cache: Path | None = None) -> Iterator[CachedStep]:
    """All steps of the cache, in the order of their names."""
    root = cache or cache_home() / "steps"
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        kind, dash, _ = folder.name.rpartition("-")
        if not dash or not folder.is_dir() or folder.is_symlink():
            continue
        record = folder / "step.json"
        times = [path.stat().st_mtime for path in (record, folder / "run", folder) if path.exists()]
        yield CachedStep(folder, kind, record.is_file(), max(times), _size(folder))


def remove(steps: Iterable[CachedStep]) -> int:
    """Remove steps; one that a process is working on stays. Returns the bytes that became free.

    What is removed is made again when a recipe needs it.
    """
    freed = 0
    for step in steps:
        try:
            with lock(step.folder, what="step"):
                (step.folder / "step.json").unlink(missing_ok=True)  # half a step must not count as done
                shutil.rmtree(step.folder)
        except UserError:
            continue
        freed += step.size
    return freed


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
