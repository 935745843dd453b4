"""Lineage: which parents, settings, data, seeds and versions a checkpoint comes from, stored beside it.

`warmstart.json` in a checkpoint's folder holds the record, with the records of all ancestors inside, so that
it stays readable when the ancestors are gone, and the SHA-256 of every file that was written.
"""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from warmstart import __version__
from warmstart.checkpoint.headers import read_json
from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import digest

if TYPE_CHECKING:
    from warmstart.checkpoint.handle import Checkpoint

RECORD = "warmstart.json"
FORMAT = 1


class Parent(BaseModel):
    """A checkpoint that another one was made from."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: str
    """Hub id, or the name of the local folder (never its full path)."""
    fingerprint: str
    """Hash of its weights, configuration and tokenizer."""
    hub_id: str | None = None
    """Set only when it came from the hub."""
    revision: str | None = None
    """Commit on the hub, when it came from there."""
    role: str = "source"
    """What it gave: source, tokenizer, teacher, …"""
    license: str | None = None
    """Licence that its model card states."""
    lineage: Lineage | None = None
    """Its own record; None when it was not made by warmstart."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, role: str = "source") -> Parent:
        """The record of a resolved checkpoint."""
        return cls(
            name=checkpoint.name,
            fingerprint=checkpoint.fingerprint,
            hub_id=checkpoint.hub_id,
            revision=checkpoint.revision,
            role=role,
            license=checkpoint.license,
            lineage=checkpoint.lineage,
        )


class Lineage(BaseModel):
    """How one checkpoint came to be."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    operation: str
    """What was done: train, transplant, …"""
    settings: dict[str, Any] = {}
    """The settings as resolved, defaults included."""
    parents: list[Parent] = []
    """Checkpoints it was made from; empty for a model trained from scratch."""
    data: dict[str, str] = {}
    """Corpus, or other file that was read -> fingerprint."""
    seeds: dict[str, int] = {}
    """What was seeded -> seed."""
    versions: dict[str, str] = {}
    """Package -> version."""
    measured: dict[str, Any] = {}
    """Numbers measured on this checkpoint, such as `bpb`."""
    created: str = ""
    """ISO time, UTC."""

    @classmethod
    def of(
        cls,
        operation: str,
        settings: BaseModel | Mapping[str, Any] | None = None,
        *,
        parents: Sequence[Checkpoint | Parent | tuple[str, Checkpoint]] = (),
        data: Mapping[str, str] | None = None,
        seeds: Mapping[str, int] | None = None,
        measured: Mapping[str, Any] | None = None,
    ) -> Lineage:
        """A record of what is being done now, with the versions and the time filled in.

        Args:
            operation: Name of the operation.
            settings: Settings object or table; paths and other values become JSON.
            parents: Checkpoints in the role `source`, `(role, checkpoint)` pairs, or ready records.
            data: Name of a corpus, or of another file that was read, to its fingerprint.
            seeds: What was seeded to the seed.
            measured: Numbers measured on the result.
        """
        table = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else dict(settings or {})
        return cls(
            operation=operation,
            settings=_plain(table),
            parents=[_parent(p) for p in parents],
            data=dict(data or {}),
            seeds=dict(seeds or {}),
            versions=versions(),
            measured=_plain(dict(measured or {})),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )

    @property
    def identity(self) -> str:
        """Hash of what was done to what: equal for two attempts at the same."""
        parents = [[parent.role, parent.fingerprint] for parent in self.parents]
        return digest([self.operation, self.settings, parents, self.data, self.seeds])

    def ancestors(self) -> Iterator[Parent]:
        """Parents, their parents and so on, nearest first along each branch."""
        for parent in self.parents:
            yield parent
            if parent.lineage:
                yield from parent.lineage.ancestors()

    def tree(self, name: str = "this checkpoint") -> dict[str, Any]:
        """Nested `{"label", "detail", "children"}` of the ancestry, for a terminal, a page or a card."""
        data = ", ".join(self.data)
        return {
            "label": name,
            "detail": self.operation + (f" on {data}" if data else ""),
            "children": [_branch(parent) for parent in self.parents],
        }


def _branch(parent: Parent) -> dict[str, Any]:
    label = f"{parent.hub_id or parent.name} ({parent.role}, {parent.fingerprint[:12]})"
    if parent.lineage is None:
        return {"label": label, "detail": "", "children": []}
    return parent.lineage.tree(label)


def tree_lines(tree: Mapping[str, Any], indent: str = "") -> list[str]:
    """The tree of [`Lineage.tree`][warmstart.checkpoint.lineage.Lineage.tree] as lines of plain text."""
    detail = f": {tree['detail']}" if tree["detail"] else ""
    lines = [f"{tree['label']}{detail}"]
    for number, child in enumerate(tree["children"], 1):
        last = number == len(tree["children"])
        first, *rest = tree_lines(child)
        lines += [f"{'└── ' if last else '├── '}{first}"]
        lines += [f"{'    ' if last else '│   '}{line}" for line in rest]
    return [indent + line for line in lines]


def _parent(given: Checkpoint | Parent | tuple[str, Checkpoint]) -> Parent:
    if isinstance(given, Parent):
        return given
    if isinstance(given, tuple):
        return Parent.of(given[1], given[0])
    return Parent.of(given)


def versions() -> dict[str, str]:
    """Versions of what computes, without importing it."""
    found = {"warmstart": __version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "tokenizers", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # a vendored build without metadata
            continue
    return found


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(value, default=_json))
    return plain


def _json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if hasattr(value, "item"):  # a NumPy or torch scalar
        return value.item()
    return str(value)


def read_record(folder: Path) -> dict[str, Any]:
    """The parsed `warmstart.json` of a folder; empty when there is none."""
    return read_json(folder / RECORD) if (folder / RECORD).is_file() else {}


def read_lineage(folder: Path) -> Lineage | None:
    """The lineage of a folder that warmstart wrote; None for other people's folders."""
    record = read_record(folder)
    if not record.get("lineage"):
        return None
    try:
        return Lineage.model_validate(record["lineage"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"the lineage record is damaged at {place}: {first['msg']}",
            where=folder / RECORD,
            fix="restore the file, or remove it to go on without lineage",
        ) from None


def expected_hashes(folder: Path) -> dict[str, str]:
    """File name to SHA-256 as recorded when the folder was written, or as the hub's cache names it.

    A file of the hub's cache is a link to a blob whose name is the SHA-256 of a large file.
    """
    recorded = read_record(folder).get("files", {})
    found = {str(k): str(v) for k, v in recorded.items()} if isinstance(recorded, dict) else {}
    for file in folder.iterdir():
        if file.is_symlink() and file.parent.parent.name == "snapshots":
            blob = file.resolve().name
            if len(blob) == 64 and set(blob) <= set("0123456789abcdef"):
                found.setdefault(file.name, blob)
    return found


Parent.model_rebuild()
