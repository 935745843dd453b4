"""Data sets by name: one file per family in `named/`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from warmstart.corpus.reading import SourceFile
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.source import Source
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.registry import Registry


class NamedSet:
    """A family of sets under one name: `multi30k/en`, `multi30k/de` and the parallel `multi30k/en-de`.

    Subclasses override what applies; a member is the part of the name after the slash (empty without one).
    """

    def corpora(self) -> list[str]:
        """Members that can be opened as a corpus."""
        return []

    def parallel(self) -> list[str]:
        """Members that can be opened as pairs."""
        return []

    def open(self, member: str, settings: CorpusSettings) -> Source:
        """The documents of a member of `corpora`."""
        raise NotImplementedError

    def pairs(self, member: str, split: str) -> tuple[list[SourceFile], Iterator[tuple[str, str]]]:
        """The files a member of `parallel` is read from (for its fingerprint), and its pairs."""
        raise NotImplementedError

    @staticmethod
    def chosen_splits(split: str, known: Iterable[str], name: str) -> list[str]:
        """`split` as a list: all of `known` for `all`; `UserError` for one that is not there."""
        if split == "all":
            return list(known)
        if split not in known:
            raise UserError(f"there is no split {split!r}", where=name, fix=nearest(split, [*known, "all"]))
        return [split]


datasets: Registry[type[NamedSet]] = Registry("dataset", "warmstart.corpus.named")
"""All named sets."""


def dataset_names() -> list[str]:
    """Every name that `open_corpus` or `open_pairs` takes, such as `multi30k/de`."""
    names = []
    for entry in datasets:
        family = entry.target()
        names += [f"{entry.name}/{m}" if m else entry.name for m in (*family.corpora(), *family.parallel())]
    return sorted(set(names))


def is_named(path: str) -> bool:
    """Whether the part before the slash is the name of a family of sets."""
    return path.split("/", 1)[0] in datasets


def open_named(path: str, settings: CorpusSettings) -> Source:
    """Open a named set as a corpus; an unknown member is a `UserError` that names the nearest."""
    family, member, known = _family(path, parallel=False)
    if member not in known:
        raise unknown_member(path, known)
    return family.open(member, settings)


def open_named_pairs(path: str, split: str) -> tuple[list[SourceFile], Iterator[tuple[str, str]]]:
    """Open a named set as pairs."""
    family, member, known = _family(path, parallel=True)
    if member not in known:
        raise unknown_member(path, known)
    return family.pairs(member, split)


def unknown_member(path: str, known: list[str]) -> UserError:
    """The error for a name whose family is known and whose member is not."""
    family = path.split("/", 1)[0]
    names = [f"{family}/{member}" if member else family for member in known]
    if not names:
        return UserError(f"{family!r} has no data of this kind", fix="see warmstart data --list")
    return UserError(f"unknown data set {path!r}", fix=nearest(path, names))


def _family(path: str, *, parallel: bool) -> tuple[NamedSet, str, list[str]]:
    name, _, member = path.partition("/")
    family = datasets.get(name).target()
    return family, member, family.parallel() if parallel else family.corpora()
