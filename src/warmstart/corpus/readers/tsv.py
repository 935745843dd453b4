"""Tab-separated values."""

from __future__ import annotations

from warmstart.corpus.reading import readers
from warmstart.corpus.tables import table_reader

read_tsv = readers.register(
    "tsv", title="Tab-separated values", tags=("suffix:.tsv", "suffix:.tab", "fields")
)(table_reader("tsv", "\t", quoted=False))
