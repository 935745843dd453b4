"""Sample texts and their bytes in every format and compression."""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import Any

import zstandard

TEXTS = [
    "The first document, with a comma.",
    'She said "go", and left.',
    "Größe, naïve, 你好 and 🙂",
    "semi; tab-free; quote ' and backslash \\n",
]


def compress(data: bytes, compression: str) -> bytes:
    """Bytes as they lie in a plain, `.gz` or `.zst` file."""
    if compression == ".gz":
        return gzip.compress(data)
    return zstandard.ZstdCompressor().compress(data) if compression == ".zst" else data


def encode(texts: list[str], suffix: str, **more: list[Any]) -> bytes:
    """Texts as a file of the format `suffix`; `more` are further columns."""
    rows = [dict(zip(["text", *more], values)) for values in zip(texts, *more.values())]
    if suffix == ".txt":
        return ("\n".join(texts) + "\n").encode()
    if suffix == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table({"text": texts, **more}), buffer, row_group_size=2)
        return buffer.getvalue()
    if suffix == ".csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, ["text", *more])
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode()
    assert suffix == ".tsv"
    lines = ["\t".join(["text", *more]), *("\t".join(str(value) for value in row.values()) for row in rows)]
    return ("\n".join(lines) + "\n").encode()
