"""Safetensors shards, written and read tensor by tensor: memory holds a few tensors, never a model."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from warmstart.checkpoint.headers import BITS, INDEX, SINGLE, TensorHeader, read_json
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import disk_errors, write_atomic
from warmstart.foundation.progress import progress

if TYPE_CHECKING:
    import torch

_JOURNAL = ".shards.json"
_TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class Planned(NamedTuple):
    """A tensor that will be written."""

    name: str
    dtype: str
    """Safetensors name of the type, such as `BF16`."""
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return math.prod(self.shape) * BITS[self.dtype] // 8


class Shard(NamedTuple):
    """One file."""

    name: str
    tensors: tuple[Planned, ...]


class TensorReader:
    """Stored tensors one at a time, read and not mapped: what is dropped is free at once.

    Args:
        headers: Names and places, as [`read_headers`][warmstart.checkpoint.headers.read_headers] gives them.
    """

    def __init__(self, headers: Mapping[str, TensorHeader]) -> None:
        self._headers = headers

    def read(self, name: str) -> torch.Tensor:
        """The whole tensor, of its stored type."""
        header = self._headers[name]
        return self._bytes(header, header.begin, header.nbytes).reshape(header.shape)

    def pieces(self, name: str, most: int) -> Iterator[torch.Tensor]:
        """The tensor flattened, in consecutive pieces of at most `most` elements."""
        header = self._headers[name]
        size = BITS[header.dtype] // 8
        for first in range(0, header.numel, most):
            count = min(most, header.numel - first)
            yield self._bytes(header, header.begin + first * size, count * size)

    def _bytes(self, header: TensorHeader, begin: int, count: int) -> torch.Tensor:
        import torch

        kind = torch_type(header.dtype)
        raw = np.empty(count, dtype=np.uint8)
        with header.file.open("rb", buffering=0) as file:
            file.seek(begin)
            view = memoryview(raw.data)
            while view:
                got = file.readinto(view)
                if not got:
                    raise UserError("the shard is truncated", where=header.file, fix="fetch it again")
                view = view[got:]
        return torch.from_numpy(raw).view(kind)


def type_name(dtype: torch.dtype | str) -> str:
    """Safetensors name of a type of torch."""
    plain = str(dtype).removeprefix("torch.")
    return next(name for name, torch_name in _TYPES.items() if torch_name == plain)


def torch_type(name: str) -> torch.dtype:
    """The type of torch that safetensors calls `name`.

    Raises:
        UserError: torch has none.
    """
    import torch

    if name not in _TYPES:
        raise UserError(f"tensors of the type {name} cannot be changed")
    found: torch.dtype = getattr(torch, _TYPES[name])
    return found


def parse_size(size: str | int) -> int:
    """Bytes of `"5GB"`, `"500 MB"`, `"2GiB"` or a number.

    Raises:
        UserError: Another notation, or nothing.
    """
    found = re.fullmatch(r"\s*([\d.]+)\s*([a-zA-Z]*)\s*", str(size))
    if not found or found[2].upper() not in _UNITS or float(found[1]) <= 0:
        raise UserError(f"{size!r} is no size of a file", fix="write it like 5GB or 500MB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def shards_of(tensors: Sequence[Planned], max_shard_size: str | int = "5GB") -> list[Shard]:
    """Which tensor goes into which file, in order; a tensor is never split."""
    limit = parse_size(max_shard_size)
    groups: list[list[Planned]] = [[]]
    for tensor in tensors:
        if groups[-1] and sum(t.nbytes for t in groups[-1]) + tensor.nbytes > limit:
            groups.append([])
        groups[-1].append(tensor)
    count = len(groups)
    if count == 1:
        return [Shard(SINGLE, tuple(groups[0]))]
    return [
        Shard(f"model-{number:05d}-of-{count:05d}.safetensors", tuple(group))
        for number, group in enumerate(groups, start=1)
    ]


def write_shards(
    folder: Path,
    shards: Sequence[Shard],
    produce: Callable[[str], torch.Tensor | Iterable[torch.Tensor]],
) -> dict[str, str]:
    """Write all shards that a former attempt in the same folder did not finish.

    Reading and computing go on while the last tensor is written and hashed in a second thread.

    Args:
        folder: Where; it exists.
        shards: As planned; a former attempt must have planned the same.
        produce: Name of a tensor to the tensor, or to consecutive pieces of it, flattened.

    Returns:
        File name to SHA-256.

    Raises:
        UserError: A full disk; what is finished stays for the next attempt.
    """
    done: dict[str, str] = read_json(folder / _JOURNAL) if (folder / _JOURNAL).is_file() else {}
    done = {name: value for name, value in done.items() if (folder / name).is_file()}
    total = sum(tensor.nbytes for shard in shards for tensor in shard.tensors)
    with progress("writing", total=total or 1) as task:
        written = sum(t.nbytes for shard in shards if shard.name in done for t in shard.tensors)
        for shard in shards:
            if shard.name in done:
                continue
            with disk_errors(folder), _ShardFile(folder / shard.name, shard.tensors) as file:
                for tensor in shard.tensors:
                    task.update(written, tensor.name)
                    made = produce(tensor.name)
                    file.add(tensor, [made] if hasattr(made, "dtype") else made)
                    written += tensor.nbytes
            done[shard.name] = file.digest
            write_atomic(folder / _JOURNAL, json.dumps(done))
    if len(shards) > 1:
        places = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    (folder / _JOURNAL).unlink()
    return done


class _ShardFile:
    """A shard in the making, under a temporary name until it is whole."""

    def __init__(self, path: Path, tensors: Sequence[Planned]) -> None:
        self._path, self._part = path, path.with_name(f"{path.name}.part")
        self._header = _header(tensors)
        self._hash = hashlib.sha256()
        self.digest = ""

    def __enter__(self) -> _ShardFile:
        self._file = self._part.open("wb", buffering=0)
        self._writer = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        self._write(np.frombuffer(self._header, dtype=np.uint8))
        return self

    def add(self, tensor: Planned, pieces: Iterable[Any]) -> None:
        """Append the tensor that comes next by the plan."""
        count = 0
        for piece in pieces:
            if type_name(piece.dtype) != tensor.dtype:
                raise ValueError(f"{tensor.name}: {piece.dtype} in place of {tensor.dtype}")
            raw = piece.detach().contiguous().reshape(-1).view(_byte()).numpy()
            count += raw.nbytes
            self._wait()
            self._pending = self._writer.submit(self._write, raw)
        if count != tensor.nbytes:
            raise ValueError(f"{tensor.name}: {count} bytes in place of {tensor.nbytes}")

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _write(self, raw: np.ndarray) -> None:
        view = memoryview(raw.data)
        self._hash.update(view)
        while view:
            view = view[self._file.write(view) :]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._wait()
                os.fsync(self._file.fileno())
        finally:
            self._writer.shutdown()
            self._file.close()
            if kind is not None:
                self._part.unlink(missing_ok=True)
        if kind is None:
            self._part.rename(self._path)
            self.digest = self._hash.hexdigest()


def _byte() -> torch.dtype:
    import torch

    return torch.uint8


def _header(tensors: Sequence[Planned]) -> bytes:
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for tensor in tensors:
        end = position + tensor.nbytes
        table[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
