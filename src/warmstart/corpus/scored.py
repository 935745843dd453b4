"""Pairs of sentences with a number for how alike people find them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from warmstart.corpus.corpus import missing_path
from warmstart.corpus.data_files import DataFile
from warmstart.corpus.splitting import ALIASES
from warmstart.corpus.streams import stem_name
from warmstart.corpus.tables import rows
from warmstart.foundation.errors import UserError


class ScoredPairs(NamedTuple):
    """Pairs in their order."""

    first: list[str]
    second: list[str]
    scores: list[float]


_SICK = {"train": "train", "valid": "trial", "test": "test"}


def scored_pairs(name: str | Path, split: str = "test") -> ScoredPairs:
    """Read pairs of sentences with their scores.

    Args:
        name: `sick` (relatedness from 1 to 5 of "A SICK cure for the evaluation of compositional
            distributional semantic models", in the data folder), or a file with three columns: two sentences
            and a number. Tabs in .tsv and .txt, commas and quotes in .csv; plain, .gz or .zst.
        split: `train`, `valid` or `test` of a named set; a file has one part.

    Raises:
        UserError: Nothing of that name, no pair, or a line that is not two texts and a number.
    """
    if str(name) == "sick":
        wanted = ALIASES.get(split, split)
        if wanted not in _SICK:
            raise UserError(
                f"sick has no part {split!r}", where="sick", fix=f"choose one of {', '.join(_SICK)}"
            )
        return _read(DataFile("pair_sick", f"{_SICK[wanted]}.tsv.gz").locate().path, (1, 2, 3), header=True)
    path = Path(name).expanduser()
    if path.is_dir():
        raise UserError("this is a folder, not a file of pairs", where=path, fix="name one file in it")
    if not path.is_file():
        raise missing_path(str(name))
    return _read(path, (0, 1, 2), header=False)


def _read(path: Path, columns: tuple[int, int, int], *, header: bool) -> ScoredPairs:
    found = ScoredPairs([], [], [])
    for number, cells in _rows(path):
        if header:
            header = False
            continue
        texts = [cells[i].strip() if i < len(cells) else "" for i in columns]
        try:
            score = float(texts[2])
        except ValueError:
            score = float("nan")
        if not (texts[0] and texts[1] and score == score):
            raise UserError(
                f"line {number:,} does not hold two texts and a number",
                where=path,
                fix="write one pair per line: first text, second text, score, with tabs between",
            )
        found.first.append(texts[0])
        found.second.append(texts[1])
        found.scores.append(score)
    if not found.first:
        raise UserError("there is no pair in it", where=path)
    return found


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    quoted = Path(stem_name(path)).suffix.lower() == ".csv"
    return rows(path, "," if quoted else "\t", quoted=quoted, encoding="utf-8")
