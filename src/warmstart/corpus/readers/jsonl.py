"""JSON lines: one object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator

from warmstart.corpus.document import Document
from warmstart.corpus.fields import document_of, missing_field
from warmstart.corpus.reading import SourceFile, readers
from warmstart.corpus.settings import CorpusSettings
from warmstart.corpus.streams import whole_lines
from warmstart.foundation.errors import UserError


@readers.register("jsonl", title="JSON lines", tags=("suffix:.jsonl", "suffix:.ndjson", "fields"))
def read_jsonl(file: SourceFile, settings: CorpusSettings) -> Iterator[Document]:
    """Read one document per line from the key `text_field`; dots reach into nested objects (`page.text`)."""
    for number, line in whole_lines(file.path, settings.encoding):
        if not line.strip():
            continue
        place = f"{file.path}:{number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"the line is not JSON ({error})", where=place, fix="mend or remove it") from None
        if not isinstance(record, dict):
            raise UserError(
                f"the line is a JSON {type(record).__name__}, not an object",
                where=place,
                fix='write {"text": …}',
            )
        value = _value(record, str(settings.text_field))
        if value is _ABSENT:
            raise missing_field(settings, list(record), place)
        metadata = {name: _value(record, name) for name in settings.metadata_fields}
        for name, kept in metadata.items():
            if kept is _ABSENT:
                raise missing_field(settings, list(record), place, field=name)
        if document := document_of(value, f"{file.id}:{number}", metadata, settings, place):
            yield document


_ABSENT = object()


def _value(record: dict[str, object], name: str) -> object:
    if name in record:
        return record[name]
    value: object = record
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            return _ABSENT
        value = value[part]
    return value
