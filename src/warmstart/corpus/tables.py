"""Rows of .csv and .tsv files, with or without quotes, streaming."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from warmstart.corpus.document import Document
from warmstart.corpus.fields import document_of, missing_field
from warmstart.corpus.reading import Reader, SourceFile
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.streams import whole_lines
from warmstart.foundation.errors import UserError

FIELD_LIMIT = 16 << 20
"""Characters above which a quoted field is taken for one whose closing quote is missing."""


def rows(path: Path, delimiter: str, *, quoted: bool, encoding: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of their last line; blank lines are passed over.

    Args:
        path: The file, plain or compressed.
        delimiter: One character between fields.
        quoted: Whether `"…"` may enclose a field, which then may hold delimiters, line breaks and `""`.
        encoding: Encoding of the file.

    Raises:
        UserError: A quote that is never closed, with the line on which its row starts.
    """
    if not quoted:
        for number, line in whole_lines(path, encoding):
            if line.strip():
                yield number, line.split(delimiter)
        return
    if csv.field_size_limit() < FIELD_LIMIT:
        csv.field_size_limit(FIELD_LIMIT)
    # the module wants line ends kept, so that those inside quotes survive
    table = csv.reader(
        (text + "\n" for _, text in whole_lines(path, encoding)), delimiter=delimiter, strict=True
    )
    start = 1
    while True:
        try:
            row = next(table)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"the quotes of the row that starts on line {start:,} are wrong ({error})",
                where=path,
                fix="mend it, or set quoting: none where quotes are just text",
            ) from None
        start = table.line_num + 1
        if any(cell.strip() for cell in row):
            yield table.line_num, row


def table_reader(name: str, delimiter: str, *, quoted: bool) -> Reader:
    """A reader of rows whose default is quoted or not; the setting `quoting` overrules it."""

    def read(file: SourceFile, settings: CorpusSettings) -> Iterator[Document]:
        use_quotes = quoted if settings.quoting == "auto" else settings.quoting == "minimal"
        table = rows(file.path, delimiter, quoted=use_quotes, encoding=settings.encoding)
        column: int | None = None
        names: list[str] = []
        kept: dict[str, int] = {}
        for number, row in table:
            place = f"{file.path}:{number}"
            if column is None:
                column, names, kept = _columns(row, settings, place)
                if settings.header:
                    continue
            if len(row) <= max(column, *kept.values(), -1) or (settings.header and len(row) != len(names)):
                raise UserError(
                    f"the row has {len(row)} fields where the first has {len(names)}",
                    where=place,
                    fix="mend it, or change quoting (minimal or none)",
                )
            metadata = {key: row[index] for key, index in kept.items()}
            if document := document_of(row[column], f"{file.id}:{number}", metadata, settings, place):
                yield document

    read.__doc__ = (
        f"Read one document per row of a .{name} file, from the column `text_field` (a name in the header, "
        f"or a number from 0). Quotes are {'understood' if quoted else 'text'} unless `quoting` tells."
    )
    read.__qualname__ = f"read_{name}"
    return read


def _columns(first: list[str], settings: CorpusSettings, place: str) -> tuple[int, list[str], dict[str, int]]:
    """Column of the text, all column names, and columns of the metadata fields."""
    if not settings.header and not isinstance(settings.text_field, int):
        raise UserError(
            f"without a header row there is no column {settings.text_field!r}",
            where=place,
            fix=f"set text_field to a column number from 0 to {len(first) - 1}",
        )
    names = first if settings.header else [str(index) for index in range(len(first))]

    def index_of(name: str | int, field: str | None) -> int:
        if isinstance(name, int) and 0 <= name < len(first):
            return name
        if name in names:
            return names.index(str(name))
        error = missing_field(settings, names, place, field=field)
        if settings.header:
            error = UserError(
                error.what, where=place, fix=f"{error.fix}; if the file has no header row: header: false"
            )
        raise error

    return (
        index_of(settings.text_field, None),
        names,
        {field: index_of(field, field) for field in settings.metadata_fields},
    )
