"""What readers of records share: the text field, its type, and the error that lists the fields there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warmstart.corpus.document import Document
from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.errors import UserError


def document_of(
    value: object, id: str, metadata: dict[str, Any], settings: CorpusSettings, place: object
) -> Document | None:
    """A document from a field's value; nothing for a null or blank one; `UserError` if it is not text."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise UserError(
            f"the field {settings.text_field!r} holds a {type(value).__name__}, not text",
            where=place,
            fix="name another field with text_field: …",
        )
    return Document(value, id, metadata) if value.strip() else None


def missing_field(
    settings: CorpusSettings, present: Sequence[object], place: object, field: str | None = None
) -> UserError:
    """The error for a record without the text field, or without the metadata field `field`."""
    wanted, setting = (settings.text_field, "text_field") if field is None else (field, "metadata_fields")
    names = [str(name) for name in present]
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return UserError(
        f"there is no field {wanted!r}; the fields are: {shown}",
        where=place,
        fix=f"name one with {setting}: …",
    )
