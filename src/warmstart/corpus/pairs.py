"""Parallel sentences and dictionaries: pairs of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from warmstart.corpus.corpus import missing_path
from warmstart.corpus.named_set import is_named, open_named_pairs
from warmstart.corpus.reading import SourceFile, files_digest
from warmstart.corpus.splitting import ALIASES
from warmstart.corpus.streams import stem_name, whole_lines
from warmstart.corpus.tables import rows
from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import digest


class Pairs:
    """Pairs of texts, read anew on each iteration.

    Attributes:
        name: What a person calls them.
        files: The files they are read from.
    """

    def __init__(
        self,
        name: str,
        files: list[SourceFile],
        read: Callable[[], Iterator[tuple[str, str]]],
        variant: str = "",
    ) -> None:
        self.name, self.files, self._read, self._variant = name, files, read, variant
        self._fingerprint: str | None = None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        empty = True
        for pair in self._read():
            empty = False
            yield pair
        if empty:
            raise UserError(
                "there is no pair in it", where=self.name, fix="write one pair per line, tab between"
            )

    def __repr__(self) -> str:
        return f"Pairs({self.name!r})"

    @property
    def fingerprint(self) -> str:
        """Hash of the content and, for named sets, of the direction and split."""
        if self._fingerprint is None:
            self._fingerprint = digest(["pairs", self._variant, files_digest(self.files)])
        return self._fingerprint

    def swapped(self) -> Pairs:
        """The same pairs, second text first."""
        return Pairs(
            f"{self.name} (swapped)",
            self.files,
            lambda: ((right, left) for left, right in self._read()),
            f"{self._variant} swapped",
        )


def open_pairs(source: str | Path, split: str = "train", *, encoding: str = "utf-8") -> Pairs:
    """Open parallel sentences or a bilingual dictionary.

    Args:
        source: A named set (`multi30k/en-de`, `bible/eng-deu`, `dictionary/en-fi`; each also the other way
            round) or a file with one pair per line: .tsv or .txt with a tab between, .csv with quotes, or
            .txt with a space between two words (the format of the MUSE dictionaries). Plain, .gz or .zst.
        split: `train`, `valid`, `test` or `all`, for named sets that are divided; others ignore it.
        encoding: Encoding of the file.

    Raises:
        UserError: Nothing of that name; lines without exactly two texts, with the first line's number and how
            many there are (when they are read).
    """
    name = str(source)
    path = Path(name).expanduser()
    if path.is_file():
        file = SourceFile(path, path.name)
        return Pairs(name, [file], lambda: read_pairs(path, encoding))
    if path.is_dir():
        raise UserError("this is a folder, not a file of pairs", where=path, fix="name one file in it")
    if is_named(name):
        split = ALIASES.get(split, split)
        files, _ = open_named_pairs(name, split)
        return Pairs(name, files, lambda: open_named_pairs(name, split)[1], f"{name} {split}")
    raise missing_path(name)


def read_pairs(path: Path, encoding: str = "utf-8") -> Iterator[tuple[str, str]]:
    """Pairs of one file. All malformed lines are counted before the error about the first is raised."""
    suffix = Path(stem_name(path)).suffix.lower()
    if suffix == ".csv":
        table = rows(path, ",", quoted=True, encoding=encoding)
    elif suffix == ".txt" and not _has_tab(path, encoding):
        table = ((number, line.split()) for number, line in whole_lines(path, encoding) if line.strip())
    else:
        table = rows(path, "\t", quoted=False, encoding=encoding)
    bad, first, seen = 0, 0, ""
    for number, cells in table:
        texts = [cell.strip() for cell in cells]
        if len(texts) == 2 and all(texts):
            if not bad:
                yield texts[0], texts[1]
            continue
        bad += 1
        if bad == 1:
            first = number
            seen = f"{len(texts)} field{'s' * (len(texts) != 1)}" if len(texts) != 2 else "an empty field"
    if bad:
        others = f"; {bad:,} lines are malformed" if bad > 1 else ""
        raise UserError(
            f"line {first:,} has {seen} instead of two texts{others}",
            where=path,
            fix="write one pair per line with a tab between",
        )


def read_parallel(left: Path, right: Path, encoding: str = "utf-8") -> Iterator[tuple[str, str]]:
    """Two line-aligned files as pairs; lines that are blank on either side are left out."""
    lines = whole_lines(left, encoding), whole_lines(right, encoding)
    count = 0
    while True:
        a, b = (next(side, None) for side in lines)
        if a is None or b is None:
            break
        count += 1
        if a[1].strip() and b[1].strip():
            yield a[1].strip(), b[1].strip()
    if a is not b:
        longer = left if a is not None else right
        raise UserError(
            f"{longer.name} has more lines than its other half ({count:,})",
            where=longer,
            fix="the two files must have the same number of lines",
        )


def _has_tab(path: Path, encoding: str) -> bool:
    return any("\t" in line for _, line in zip(range(20), (text for _, text in whole_lines(path, encoding))))
