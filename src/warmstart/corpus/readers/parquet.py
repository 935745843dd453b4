"""Apache Parquet: columns in row groups."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from warmstart.corpus.document import Document
from warmstart.corpus.fields import document_of, missing_field
from warmstart.corpus.reading import SourceFile, readers
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.streams import CHUNK, COMPRESSIONS, open_binary
from warmstart.foundation.errors import UserError

ROWS = 1024
"""Rows decoded at a time."""


@readers.register("parquet", title="Apache Parquet", tags=("suffix:.parquet", "suffix:.pq", "fields"))
def read_parquet(file: SourceFile, settings: CorpusSettings) -> Iterator[Document]:
    """Read the column `text_field`, row group by row group; other columns are not decoded.

    A file that is compressed as a whole (.parquet.gz) is unpacked to a temporary file first, because the
    format is read from its end.
    """
    import pyarrow
    import pyarrow.parquet

    with _seekable(file.path) as path:
        try:
            table = pyarrow.parquet.ParquetFile(path)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise UserError(
                f"the file is not whole Parquet ({str(error).splitlines()[0]})",
                where=file.path,
                fix="write or download it again",
            ) from None
        with table:
            names = table.schema_arrow.names
            field = settings.text_field if isinstance(settings.text_field, str) else None
            if field is None and 0 <= int(settings.text_field) < len(names):
                field = names[int(settings.text_field)]
            if field not in names:
                raise missing_field(settings, names, file.path)
            for other in settings.metadata_fields:
                if other not in names:
                    raise missing_field(settings, names, file.path, field=other)
            number = 0
            columns = list(dict.fromkeys([field, *settings.metadata_fields]))
            try:
                for batch in table.iter_batches(batch_size=ROWS, columns=columns):
                    for record in batch.to_pylist():
                        number += 1
                        metadata = {name: record[name] for name in settings.metadata_fields}
                        place = f"{file.path}, row {number:,}"
                        document = document_of(
                            record[field], f"{file.id}:{number}", metadata, settings, place
                        )
                        if document:
                            yield document
            except (pyarrow.ArrowInvalid, OSError) as error:
                raise UserError(
                    f"the Parquet file is damaged after row {number:,} ({str(error).splitlines()[0]})",
                    where=file.path,
                    fix="write or download it again",
                ) from None


@contextlib.contextmanager
def _seekable(path: Path) -> Iterator[Path]:
    if path.suffix.lower() not in COMPRESSIONS:
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=".parquet") as copy:
        with open_binary(path) as stream:
            shutil.copyfileobj(stream, copy, CHUNK)
        copy.flush()
        yield Path(copy.name)
