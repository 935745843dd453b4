"""Safetensors headers: names, types, shapes and places of tensors, read without touching the weights.

The format: eight bytes with the header's length (little endian), a JSON header, then the tensors back to
back. Everything that can be wrong with a file's structure shows here, before a library maps it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warmstart.foundation.errors import UserError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
    "C64": 64,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "U64": 64,
    "U32": 32,
    "U16": 16,
    "U8": 8,
    "BOOL": 8,
}
_LONGEST_HEADER = 100_000_000  # the limit of the safetensors library itself


@dataclass(frozen=True)
class TensorHeader:
    """One stored tensor.

    Attributes:
        file: File that holds it.
        dtype: Safetensors name of the type, such as `"BF16"`.
        shape: Sizes of the axes.
        begin: First byte within the file (not within the data part).
        end: First byte after it.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        return self.end - self.begin


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; anything else in it is a `UserError`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path.name} is not valid JSON ({error})", where=path.parent, fix="fetch or write the file again"
        ) from None
    if not isinstance(data, dict):
        raise UserError(f"{path.name} holds no table", where=path.parent, fix="fetch or write the file again")
    return data


def read_header(file: Path) -> dict[str, TensorHeader]:
    """Tensors of one safetensors file, after checking its structure against the file's size.

    Raises:
        UserError: When the file is too short, longer than declared, or its header contradicts itself.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            what = (
                "the shard is truncated"
                if size < 8 or length <= _LONGEST_HEADER
                else "not a safetensors file"
            )
            raise _broken(file, f"{what}: {size:,} bytes, and the header alone declares {length:,}")
        raw = stream.read(length)
    try:
        table = json.loads(raw)
        assert isinstance(table, dict)
        table.pop("__metadata__", None)
        found = {name: _tensor(file, 8 + length, entry) for name, entry in table.items()}
    except (ValueError, KeyError, TypeError, AssertionError):
        raise _broken(file, "the header of the shard cannot be read") from None
    return _fitting(file, size, 8 + length, found)


def _tensor(file: Path, start: int, entry: dict[str, Any]) -> TensorHeader:
    begin, end = entry["data_offsets"]
    shape = tuple(int(n) for n in entry["shape"])
    if entry["dtype"] not in BITS or min(shape, default=0) < 0:
        raise ValueError(entry["dtype"])
    tensor = TensorHeader(file, entry["dtype"], shape, start + int(begin), start + int(end))
    if tensor.nbytes * 8 != tensor.numel * BITS[tensor.dtype]:
        raise ValueError(shape)
    return tensor


def _fitting(file: Path, size: int, start: int, found: dict[str, TensorHeader]) -> dict[str, TensorHeader]:
    position = start
    for tensor in sorted(found.values(), key=lambda t: (t.begin, t.end)):
        if tensor.begin != position:
            raise _broken(file, "the tensors of the shard overlap or leave gaps")
        position = tensor.end
    if size < position:
        raise _broken(file, f"the shard is truncated: {size:,} bytes where the header declares {position:,}")
    if size > position:
        raise _broken(file, f"the shard has {size - position:,} bytes after its last tensor")
    return found


def _broken(file: Path, what: str) -> UserError:
    return UserError(what, where=file, fix="fetch or copy the file again")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would load, in order; empty when there are none.

    A single `model.safetensors` wins over an index, as in transformers.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return [folder / name for name in sorted(set(read_index(folder).values()))]
    return []


def read_index(folder: Path) -> dict[str, str]:
    """Tensor name to shard name, from the index of a sharded checkpoint."""
    table = read_json(folder / INDEX).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(v, str) for v in table.values()):
        raise UserError("the index has no weight_map", where=folder / INDEX, fix="fetch the file again")
    for name in table.values():
        if Path(name).name != name:  # an index must not lead out of its folder
            raise UserError(f"the index names a file outside the folder: {name}", where=folder / INDEX)
    return table


def read_headers(folder: Path) -> dict[str, TensorHeader]:
    """All tensors of a checkpoint, with the index compared to what the shards really hold.

    Raises:
        UserError: For a missing, truncated or swapped shard.
    """
    files = weight_files(folder)
    missing = [f.name for f in files if not f.is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(files)} shards are missing, first {missing[0]}",
            where=folder,
            fix="fetch or copy the missing files",
        )
    held = {file.name: read_header(file) for file in files}
    if (folder / SINGLE).is_file():
        return held[SINGLE]
    index = read_index(folder)
    for name, tensors in held.items():
        said = {tensor for tensor, file in index.items() if file == name}
        wrong = sorted(said ^ set(tensors))
        if wrong:
            lacks = wrong[0] in said
            raise UserError(
                f"the shard {name} {'lacks' if lacks else 'holds'} {wrong[0]}, "
                f"which the index {'places there' if lacks else 'places elsewhere'} (a swapped shard?)",
                where=folder,
                fix="fetch or copy the shards and the index again, from one source",
            )
    return {tensor: header for tensors in held.values() for tensor, header in tensors.items()}
