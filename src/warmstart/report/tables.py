"""A page of plain tables: what is measured but is no comparison against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from warmstart import __version__
from warmstart.foundation.files import write_atomic
from warmstart.report import svg as palette
from warmstart.report import words
from warmstart.report.page import _environment


def write_tables(
    path: Path, title: str, tables: Sequence[Mapping[str, Any]], *, notes: Sequence[str] = ()
) -> Path:
    """Write tables as a self-contained HTML page without scripts, in the manner of the report.

    Args:
        path: File to write, whole or not at all.
        title: Heading of the page.
        tables: Each with `title`, `columns`, `rows` and, for lines below it, `note`.
        notes: Lines below the heading.
    """
    template = _environment().get_template("tables.html.j2")
    filled = [{"note": [], **table} for table in tables]
    page = template.render(
        title=title, tables=filled, notes=notes, words=words, palette=palette, version=__version__
    )
    write_atomic(path, page)
    return path
