"""Downloads that are checked, resumed, and whole or absent."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from warmstart.foundation.errors import UserError
from warmstart.foundation.files import disk_errors, sha256
from warmstart.foundation.progress import progress

_PIECE = 1 << 16
_TIMEOUT = 30.0
_YES = {"1", "true", "yes", "on"}


def offline() -> bool:
    """Whether the environment forbids network use (`HF_HUB_OFFLINE` or `HF_DATASETS_OFFLINE`)."""
    return any(os.environ.get(name, "").lower() in _YES for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))


def download(url: str, checksum: str | None, target: Path, *, name: str = "") -> Path:
    """Bring `url` to `target` unless it is there already.

    Bytes go to `<target>.part`, which an interrupted download leaves behind and the next one continues with a
    range request. The part becomes `target` only when its SHA-256 is right; a wrong one is deleted.

    Args:
        url: Address to read.
        checksum: Expected SHA-256 of the file, in hex; `None` where the caller checks what it makes of it.
        target: Where to put it.
        name: What a person calls the file, for messages.

    Raises:
        UserError: No network is allowed or reachable, the server refuses, or the bytes are wrong.
    """
    if _right(target, checksum):
        return target
    folder, _, file = (name or target.name).partition("/")
    by_hand = f"or set WARMSTART_DATA to a folder with {folder}/{file}" if file else "or copy it by hand"
    if offline():
        raise UserError(
            f"{name or url} is not on this machine and the network is switched off",
            where="HF_HUB_OFFLINE",
            fix=f"unset it once to download from {url}, {by_hand}",
        )
    part = target.with_name(target.name + ".part")
    with disk_errors(target), _alone(target):
        if _right(target, checksum):  # another process was faster
            return target
        try:
            _transfer(url, part, name or target.name)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            raise UserError(
                f"{name or target.name} could not be downloaded ({reason})",
                where=url,
                fix=f"try again (what arrived is kept), {by_hand}",
            ) from None
        if checksum is not None and (found := sha256(part)) != checksum:
            part.unlink()
            raise UserError(
                f"the download has SHA-256 {found[:12]}…, expected {checksum[:12]}…",
                where=url,
                fix=f"try again, {by_hand}",
            )
        part.replace(target)
    return target


def _right(target: Path, checksum: str | None) -> bool:
    return target.is_file() and (checksum is None or sha256(target) == checksum)


def _transfer(url: str, part: Path, name: str) -> None:
    """Append the missing bytes to `part`; start over where the server does not resume."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing, or the hash will tell
            return
        raise
    with response:
        resumed = response.status == 206
        length = int(response.headers.get("Content-Length") or 0)
        done = have if resumed else 0
        with (
            part.open("ab" if resumed else "wb") as file,
            progress(f"Downloading {name}", done + length) as task,
        ):
            received = 0
            while piece := response.read(_PIECE):
                file.write(piece)
                received += len(piece)
                task.update(done + received, f"{(done + received) / 1e6:.1f} MB")
            if length and received < length:
                raise ConnectionError("the connection broke off")


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Wait until no other process is downloading the same file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(target.name.encode()).hexdigest()[:12]
    handle = os.open(target.parent / f".{key}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
