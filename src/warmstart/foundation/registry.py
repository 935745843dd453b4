"""One registry per kind of method, filled by the files of one folder and by other people's packages.

A method is one file: `vocabulary/rows/focus.py` registers `focus`. The folder is listed without importing
it, so names are known at no cost and only the method in use is loaded. Packages add methods of the same
kind through the entry-point group `warmstart.<kind>`; the registry name is the entry point's name.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Generic, TypeVar

from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import Settings

T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered method.

    Attributes:
        name: Registry name: the YAML value, the CLI value, the docs heading and the test id.
        target: The function or class itself.
        settings: Its settings class (`Settings` itself when it has no options).
        title: Title of the paper it implements, or a plain description.
        arxiv: arXiv identifier, empty when there is none.
        tags: Capabilities by which contract checks and callers choose methods.
        version: Bumped when behaviour changes, so that cached results of older code are not reused.
        skips: Contract check name to the written reason why it cannot apply.
    """

    name: str
    target: T
    settings: type[Settings] = Settings
    title: str = ""
    arxiv: str = ""
    tags: frozenset[str] = frozenset()
    version: int = 1
    skips: dict[str, str] = field(default_factory=dict)

    @property
    def summary(self) -> str:
        """First sentence of the docstring."""
        return (self.target.__doc__ or "").strip().split("\n")[0]


class Registry(Generic[T]):
    """All methods of one kind.

    Args:
        kind: Singular noun used in messages and in the entry-point group, such as `"initialiser"`.
        package: Dotted name of the folder whose modules are the methods (`_` in a file name is `-` in the
            registry name; files that start with `_` are machinery and hold no method).
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._entries: dict[str, Entry[T]] = {}

    def register(
        self,
        name: str,
        *,
        settings: type[Settings] = Settings,
        title: str = "",
        arxiv: str = "",
        tags: tuple[str, ...] = (),
        version: int = 1,
        skips: dict[str, str] | None = None,
    ) -> Callable[[T], T]:
        """Decorator that files `target` under `name`; the same name twice is an error."""

        def decorate(target: T) -> T:
            known = self._entries.get(name)
            if known is not None and _identity(known.target) != _identity(target):
                raise ValueError(f"{self.kind} {name!r} is registered twice: {known.target!r} and {target!r}")
            self._entries[name] = Entry(
                name, target, settings, title, arxiv, frozenset(tags), version, skips or {}
            )
            return target

        return decorate

    def get(self, name: str, *, where: object = None) -> Entry[T]:
        """The method called `name`; an unknown one raises `UserError` with the nearest name."""
        if name not in self._entries:
            self._load(name)
        if name not in self._entries:
            raise UserError(f"unknown {self.kind} {name!r}", where=where, fix=nearest(name, self.names()))
        return self._entries[name]

    def choose(
        self, value: str | Mapping[str, Any], *, where: object = None, default: str = ""
    ) -> tuple[Entry[T], Any]:
        """The method that a setting names, and its own settings: a name, or a table `{name: …, …}`.

        Args:
            value: The setting.
            where: What is named in a message about an unknown method.
            default: Name of the method of a table without a name.

        Raises:
            UserError: No such method, or settings that it does not have.
        """
        table = {"name": value} if isinstance(value, str) else dict(value)
        entry = self.get(str(table.pop("name", default)), where=where)
        return entry, entry.settings.parse(table, where=f"{self.kind} {entry.name}")

    def names(self) -> list[str]:
        """Sorted names, without importing any method."""
        return sorted({*self._entries, *self._files(), *self._plugins()})

    def __iter__(self) -> Iterator[Entry[T]]:
        return (self.get(name) for name in self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def from_distribution(self, distribution: str) -> list[str]:
        """Names that the installed package `distribution` adds."""
        return sorted(n for n, ep in self._plugins().items() if ep.dist and ep.dist.name == distribution)

    def _files(self) -> list[str]:
        package = importlib.import_module(self.package)
        names = (m.name for m in pkgutil.iter_modules(package.__path__))
        return [name.replace("_", "-") for name in names if not name.startswith("_")]

    def _plugins(self) -> dict[str, Any]:
        return _entry_points(f"warmstart.{self.kind}", tuple(sys.path))

    def _load(self, name: str) -> None:
        if name in self._files():
            importlib.import_module(f"{self.package}.{name.replace('-', '_')}")
        elif name in (plugins := self._plugins()):
            plugins[name].load()


@functools.lru_cache(maxsize=64)
def _entry_points(group: str, path: tuple[str, ...]) -> dict[str, Any]:
    """Entry points of what is installed on `path`; looking through all packages takes milliseconds."""
    return {ep.name: ep for ep in metadata.entry_points(group=group)}


def _identity(target: object) -> tuple[object, object]:
    return getattr(target, "__module__", None), getattr(target, "__qualname__", target)
