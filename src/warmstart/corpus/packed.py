"""Packed tokens on disk: the form in which training reads a corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Packed:
    """Fixed-length blocks of token ids, memory-mapped: only what is touched is read from disk.

    A folder with `ids.npy`, `(N, block_size)` of uint16 (vocabularies below 65,536) or uint32; `bytes.npy`,
    `(N,)` uint32, the UTF-8 bytes of text behind each block; and `packed.json`.

    Args:
        path: A folder written by [`pack`][warmstart.corpus.packing.pack].
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self.info: dict[str, Any] = json.loads((self.path / "packed.json").read_text())
        except (OSError, ValueError):
            raise UserError("this is not a packed corpus", where=path, fix="pack it again") from None
        self._ids: NDArray[Any] | None = None
        self._bytes: NDArray[Any] | None = None
        for name, size in self.info["files"].items():
            file = self.path / name
            if not file.is_file() or file.stat().st_size != size:
                raise UserError(
                    "the packed corpus is damaged", where=file, fix="delete the folder and pack again"
                )

    @property
    def ids(self) -> NDArray[Any]:
        """All blocks, `(N, block_size)`, memory-mapped and read-only."""
        if self._ids is None:
            import numpy as np

            self._ids = np.load(self.path / "ids.npy", mmap_mode="r")
        return self._ids

    @property
    def block_bytes(self) -> NDArray[Any]:
        """UTF-8 bytes of text behind each block, `(N,)`. A document's bytes are spread evenly over its
        tokens, so a block that cuts a document is exact to within that document; the sum is exact."""
        if self._bytes is None:
            import numpy as np

            self._bytes = np.load(self.path / "bytes.npy", mmap_mode="r")
        return self._bytes

    def __len__(self) -> int:
        return int(self.info["blocks"])

    def __getitem__(self, index: int | slice | list[int] | NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
        """One block `(block_size,)`, or several `(n, block_size)` for a slice or an array of indices."""
        import numpy as np

        return np.array(self.ids[index])

    def __repr__(self) -> str:
        return f"Packed({self.info['corpus']!r}, {self.split!r}, {len(self)} blocks of {self.block_size})"

    def __getstate__(self) -> dict[str, Any]:  # a data loader's workers map the file themselves
        return {**self.__dict__, "_ids": None, "_bytes": None}

    @property
    def fingerprint(self) -> str:
        """Hash of corpus, tokenizer and packing settings."""
        return str(self.info["fingerprint"])

    @property
    def split(self) -> str:
        """Which split of the corpus this is."""
        return str(self.info["split"])

    @property
    def block_size(self) -> int:
        """Tokens per block."""
        return int(self.info["block_size"])

    @property
    def num_tokens(self) -> int:
        """Tokens in all blocks, ends of text included."""
        return len(self) * self.block_size

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of text in all blocks."""
        return int(self.info["bytes"])

    @property
    def num_documents(self) -> int:
        """Documents that were packed."""
        return int(self.info["documents"])

    @property
    def dropped_tokens(self) -> int:
        """Tokens of the last, unfinished block, which is left out."""
        return int(self.info["dropped_tokens"])

    @property
    def bytes_per_token(self) -> float:
        """Mean UTF-8 bytes of text per token, ends of text counted as tokens."""
        return self.num_bytes / self.num_tokens
