"""What a teacher says, on disk: its k likeliest tokens and the mass of the rest, found by content.

A teacher that reads the same blocks in every run (other seeds, rates, students) need read them once. Entries
are keyed by the hash of the token ids that it reads and of the places that it is asked for, never by their
order: whittle's stored logits are matched by position in the stream, which another seed, block size or number
of processes silently turns into other texts' logits.

A folder of segments, each written whole or not at all and never changed, so that runs share a folder without
locks; what two runs write twice is harmless. A segment holds n blocks with m places in all:

- `keys.npy` `(n, 16)` uint8; `starts.npy` `(n + 1,)` int64: block i has the places `starts[i]:starts[i + 1]`;
- `ids.npy` `(m, k)` uint16, or uint32 for vocabularies above 65,536;
- `log_p.npy` `(m, k)` and `tail.npy` `(m,)` in the chosen precision (bfloat16 as its 16 bits).

Size: per place `k (w + v) + w` bytes with w = 2 or 4 for a value and v = 2 or 4 for an id. k = 50 in float16
takes 202 bytes, 20 GB for 100 million tokens; k = 8 takes 34 bytes, 3.4 GB. Values are log-probabilities, so
half precision costs relative errors of a probability of up to 0.4 % (float16) and 3 % (bfloat16) where log p
lies between -8 and -16, and less above; in float32 what is read is what was written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from warmstart.foundation.errors import UserError
from warmstart.foundation.files import atomic_folder

Precision = Literal["float32", "float16", "bfloat16"]
_FILES = ("keys", "starts", "ids", "log_p", "tail")


class Entry(NamedTuple):
    """One block: `ids` (n, k) int64, `log_p` (n, k) and `tail` (n,) float32, for its n places."""

    ids: Tensor
    log_p: Tensor
    tail: Tensor


class TeacherCache:
    """Entries by key, from the folder and from memory.

    Args:
        folder: Of this teacher and k alone; made when the first segment is written.
        precision: Of what is written; what is read says itself.
        vocab: Rows of the vocabulary, which decide the type of ids.
        segment_bytes: New entries are written when so many bytes of them are in memory, and by `flush`.
    """

    def __init__(
        self, folder: Path, *, precision: Precision, vocab: int, segment_bytes: int = 64 * 2**20
    ) -> None:
        self.folder, self.precision, self.segment_bytes = Path(folder), precision, segment_bytes
        self._id_type = np.uint16 if vocab <= 2**16 else np.uint32
        self._segments: list[Mapping[str, np.ndarray]] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        self._fresh: dict[bytes, Mapping[str, np.ndarray]] = {}
        self._bytes = 0
        for path in sorted(self.folder.glob("segment-*")):
            self._open(path)

    def __len__(self) -> int:
        return len(self._places) + len(self._fresh)

    def __contains__(self, key: bytes) -> bool:
        return key in self._places or key in self._fresh

    def __getitem__(self, key: bytes) -> Entry:
        if key in self._fresh:
            return self._entry(self._fresh[key], slice(None))
        segment, number = self._places[key]
        arrays = self._segments[segment]
        start, end = arrays["starts"][number : number + 2]
        return self._entry(arrays, slice(int(start), int(end)))

    def put(self, key: bytes, entry: Entry) -> None:
        """Keep an entry; what is known stays."""
        if key in self:
            return
        found = {
            "ids": entry.ids.cpu().numpy().astype(self._id_type),
            "log_p": self._stored(entry.log_p),
            "tail": self._stored(entry.tail),
        }
        self._fresh[key] = found
        self._bytes += sum(array.nbytes for array in found.values())
        if self._bytes >= self.segment_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what is only in memory as one segment."""
        if not self._fresh:
            return
        keys, entries = list(self._fresh), list(self._fresh.values())
        path = self.folder / f"segment-{hashlib.sha256(b''.join(keys)).hexdigest()[:16]}"
        if not path.exists():
            lengths = [len(entry["tail"]) for entry in entries]
            arrays: dict[str, np.ndarray] = {
                "keys": np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1),
                "starts": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
                **{name: np.concatenate([e[name] for e in entries]) for name in _FILES[2:]},
            }
            try:
                with atomic_folder(path) as temporary:
                    for name, array in arrays.items():
                        np.save(temporary / f"{name}.npy", array)
            except (OSError, UserError):
                if not path.exists():  # else another run has written the same
                    raise
        self._fresh, self._bytes = {}, 0
        self._open(path)

    def _open(self, path: Path) -> None:
        try:
            arrays = {name: np.load(path / f"{name}.npy", mmap_mode="r") for name in _FILES}
            counts = {len(arrays[name]) for name in _FILES[2:]} | {int(arrays["starts"][-1])}
            if len(counts) != 1 or len(arrays["starts"]) != len(arrays["keys"]) + 1:
                raise ValueError
        except (OSError, ValueError, EOFError, IndexError):
            raise UserError(
                "what a teacher said is damaged", where=path, fix="remove the folder; it is made again"
            ) from None
        for number, key in enumerate(np.asarray(arrays["keys"])):
            self._places.setdefault(key.tobytes(), (len(self._segments), number))
        self._segments.append(arrays)

    def _stored(self, values: Tensor) -> np.ndarray:
        kept = values.detach().cpu().to(getattr(torch, self.precision))
        return (kept.view(torch.uint16) if self.precision == "bfloat16" else kept).numpy()

    @staticmethod
    def _entry(arrays: Mapping[str, np.ndarray], part: slice) -> Entry:
        def values(name: str) -> Tensor:
            found = torch.from_numpy(np.array(arrays[name][part]))
            return (found.view(torch.bfloat16) if found.dtype == torch.uint16 else found).float()

        ids = torch.from_numpy(arrays["ids"][part].astype(np.int64))
        return Entry(ids, values("log_p"), values("tail"))


def row_keys(batch: Mapping[str, Tensor]) -> list[bytes]:
    """One key per row of a batch: the hash of what the teacher reads and of where it is asked."""
    arrays = [(name, np.ascontiguousarray(batch[name].cpu().numpy())) for name in sorted(batch)]
    shape = repr([(name, array.shape[1:], array.dtype.str) for name, array in arrays]).encode()
    return [
        hashlib.blake2b(shape + b"".join(a[row].tobytes() for _, a in arrays), digest_size=16).digest()
        for row in range(len(arrays[0][1]))
    ]


def joined(entries: Sequence[Entry], device: Any) -> Entry:
    """The places of several blocks, one after the other, on the device."""
    return Entry(*(torch.cat(parts).to(device) for parts in zip(*entries, strict=True)))
