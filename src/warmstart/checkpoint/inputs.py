"""What the settings of a method name on disk, as a lineage records it: parents, and fingerprints of files."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from warmstart.checkpoint.lineage import RECORD, Parent
from warmstart.checkpoint.sources import CHECKPOINT_SETTINGS, resolve
from warmstart.checkpoint.stamps import Stamps
from warmstart.foundation.files import existing
from warmstart.foundation.settings import Settings, digest


def inputs_of(settings: Settings) -> tuple[list[Parent], dict[str, str]]:
    """Checkpoints and files that a method's settings name.

    Args:
        settings: Of the method; tables inside are read too. A setting counts where any text may stand, not
            where one of a few words is chosen.

    Returns:
        Each checkpoint as a parent whose role is the name of its setting (`helper`, `donor`, …), and
        `"<setting> <name of the file or folder>"` to the hash of its content (32 hex digits). What names
        nothing is left to the method, which says so in its own words.

    Raises:
        UserError: No such checkpoint, or a damaged one.
    """
    parents: list[Parent] = []
    data: dict[str, str] = {}
    for key, text in _named(settings):
        if key.rpartition(".")[2] in CHECKPOINT_SETTINGS:
            parents.append(Parent.of(resolve(text), role=key))
        elif (path := existing(text)) is not None:
            data[f"{key} {path.absolute().name}"] = content_hash(path)
    return parents, data


def content_hash(path: Path) -> str:
    """Hash of a file, or of the files of a folder with their names (32 hex digits).

    Hidden files and warmstart's own record, which holds the time, do not count. Remembered for as long as the
    files stay.
    """
    if path.is_file():
        known = Stamps(path.parent)
        found = known.sha256(path)
        known.save()
        return found[:32]
    hashes: dict[str, str] = {}
    for folder, names, files in os.walk(path):
        names[:] = [name for name in names if not name.startswith(".")]
        known = Stamps(Path(folder))
        for file in (Path(folder, name) for name in files if name != RECORD and not name.startswith(".")):
            if file.is_file():
                hashes[file.relative_to(path).as_posix()] = known.sha256(file)
        known.save()
    return digest(hashes) + digest({"second half": hashes})


def _named(settings: Settings, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every free text in the settings, by the dotted name of its setting."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _named(value, f"{prefix}{name}.")
        elif isinstance(value, str | Path) and _is_free(field.annotation):
            yield prefix + name, str(value)


def _is_free(annotation: Any) -> bool:
    return annotation in (str, Path) or any(_is_free(part) for part in typing.get_args(annotation))
