"""One document: the unit of reading, splitting and separating by an end-of-text token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Document:
    """A text with its place of origin.

    Attributes:
        text: The text itself, never blank.
        id: Where it came from, unique in its corpus: `"books/moby.txt"`, `"train.jsonl.gz:17"` (line or row,
            counted from 1).
        metadata: Fields asked for with `metadata_fields`, and what a named set knows (`year`, `split`).
        key: What the split is drawn from when it is not the text: the parts of one long file share the key
            of the file, so that they stay together. Empty for "the text".
    """

    text: str
    id: str
    metadata: dict[str, Any] = field(default_factory=dict)
    key: str = ""

    @property
    def num_bytes(self) -> int:
        """Length of the text in UTF-8 bytes."""
        return len(self.text.encode())
