"""Comma-separated values."""

from __future__ import annotations

from warmstart.corpus.reading import readers
from warmstart.corpus.tables import table_reader

read_csv = readers.register("csv", title="Comma-separated values", tags=("suffix:.csv", "fields"))(
    table_reader("csv", ",", quoted=True)
)
