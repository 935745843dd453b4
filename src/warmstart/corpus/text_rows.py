"""Texts as rows of token ids, each with a second row that says what is asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TextRows:
    """Texts that the training loop reads one by one, instead of packed blocks.

    Attributes:
        rows: `(N, 2, L)` int32: token ids, and what is asked for; both filled up with -1.
    """

    rows: np.ndarray

    @property
    def fingerprint(self) -> str:
        """Hash of ids and of what is asked for."""
        return hashlib.sha256(self.rows.tobytes()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        """One text, (2, L)."""
        return np.asarray(self.rows[index])
