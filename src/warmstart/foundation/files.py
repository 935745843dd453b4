"""Files that are whole or absent: atomic folders and files, run locks, hashes, cache locations."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from warmstart.foundation.errors import UserError


def cache_home() -> Path:
    """Folder for things that can be made again: `WARMSTART_CACHE`, else `$XDG_CACHE_HOME/warmstart`."""
    if own := os.environ.get("WARMSTART_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "warmstart"


@contextlib.contextmanager
def disk_errors(where: object) -> Iterator[None]:
    """Turn a full or read-only disk inside the block into one sentence; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                "the disk is full", where=where, fix="free some space; what was there before is intact"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise UserError(
                "the folder cannot be written", where=where, fix="choose another output folder"
            ) from error
        raise
    except Exception as error:  # safetensors raises its own type, with the system's text inside
        if "No space left on device" in str(error) or "os error 28" in str(error):
            raise UserError(
                "the disk is full", where=where, fix="free some space; what was there before is intact"
            ) from error
        raise


@contextlib.contextmanager
def atomic_folder(path: Path, *, replace: bool = False, unfinished: str | None = None) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that becomes `path` when the block ends without an error.

    Args:
        path: Folder to create.
        replace: Whether an existing `path` may be replaced; it stays untouched until the new one is whole.
        unfinished: Key of the work. After an error the sibling stays, and the next block with the same key
            gets it again; without a key it is removed.
    """
    path = path.absolute()
    for old in path.parent.glob(
        f".{glob.escape(path.name)}.old-*"
    ):  # a replacement was killed between renames
        _restore(old)
    if path.exists() and not replace:
        raise UserError("the output folder already exists", where=path, fix="choose another or remove it")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if unfinished is None:
            temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent))
            temporary.chmod(0o755)
        else:
            temporary = path.parent / f".{path.name}.part-{unfinished}"
            temporary.mkdir(exist_ok=True)
        try:
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            move_into(temporary, path)
        except BaseException:
            if unfinished is None:
                shutil.rmtree(temporary, ignore_errors=True)
            raise


def move_into(folder: Path, path: Path) -> None:
    """Rename `folder` to `path` on the same disk; what stood there goes once the new one is in its place."""
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old-", dir=path.parent))
        path.rename(old / path.name)
        folder.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    else:
        folder.rename(path)
    _sync(path.parent)


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write `data` to a temporary sibling and rename it over `path`."""
    payload = data.encode() if isinstance(data, str) else data
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.tmp-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`; call it while holding the lock.

    A folder that was being replaced when the process died is put back first.
    """
    if not folder.is_dir():
        return
    for old in folder.glob(".*.old-*"):
        _restore(old)
    for stale in (*folder.glob(".*.tmp-*"), *folder.glob(".*.old-*")):
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink(missing_ok=True)


def _restore(old: Path) -> None:
    """Move a replaced folder back to its place if nothing stands there."""
    for kept in old.iterdir():
        if not (old.parent / kept.name).exists():
            kept.rename(old.parent / kept.name)


@contextlib.contextmanager
def lock(folder: Path, *, what: str = "run") -> Iterator[None]:
    """Hold `folder` for this process; a second process gets a `UserError`. The system frees it on a crash."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.read(handle, 32).decode(errors="replace").strip() or "?"
            raise UserError(
                f"another process (pid {pid}) is working on this {what}",
                where=folder,
                fix="wait for it, stop it, or choose another folder",
            ) from None
        os.truncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def forget_empty(folder: Path) -> None:
    """Remove a locked folder in which nothing was left but its lock."""
    if not [path for path in folder.iterdir() if path.name != ".lock"]:
        shutil.rmtree(folder)


def missing_folders(folder: Path) -> list[Path]:
    """`folder` and those of its parents that are not there yet, the innermost first."""
    return [path for path in (folder.absolute(), *folder.absolute().parents) if not path.exists()]


@contextlib.contextmanager
def unless_refused(made: list[Path]) -> Iterator[threading.Event]:
    """Take folders away again, with all that is in the first one, if the block ends with a `UserError`.

    Args:
        made: What `missing_folders` found before the block's folder was made; empty where it was there.

    Yields:
        An event to set once the folder holds something of worth: then everything stays.
    """
    kept = threading.Event()
    try:
        yield kept
    except UserError:
        if made and not kept.is_set():
            shutil.rmtree(made[0], ignore_errors=True)
            with contextlib.suppress(OSError):  # somebody else put something into a parent
                for path in made[1:]:
                    path.rmdir()
        raise


def existing(text: str) -> Path | None:
    """The file or folder that `text` names (`~/` is the home folder); None where it names none."""
    try:
        path = Path(text).expanduser() if "/" in text else Path(text)
        return path if text and path.exists() else None
    except (OSError, RuntimeError):  # too long for a name, or the home of nobody
        return None


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
