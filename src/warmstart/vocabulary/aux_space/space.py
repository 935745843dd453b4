"""AuxSpace: names (words or tokens) with float32 vectors, and which of them are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class NgramTable:
    """fastText's hashed character n-grams, from which vectors of unseen strings are composed.

    Attributes:
        vectors: `(buckets, dim)` float32; zero where no word of the text has such an n-gram.
        min_n: Shortest n-gram in characters.
        max_n: Longest n-gram in characters.
    """

    vectors: np.ndarray
    min_n: int
    max_n: int

    def compose(self, text: str) -> np.ndarray | None:
        """Mean vector of the n-grams of `<text>`, or None where it has none.

        Bojanowski et al., "Enriching Word Vectors with Subword Information", arXiv 1607.04606. The hash is
        fastText's own (FNV-1a over signed bytes), so tables of fastText files work.
        """
        from gensim.models.fasttext import ft_ngram_hashes

        hashes = ft_ngram_hashes(text, self.min_n, self.max_n, len(self.vectors)) if text else []
        if len(hashes) == 0:
            return None
        mean = self.vectors[np.asarray(hashes, dtype=np.int64)].mean(axis=0)
        return mean.astype(np.float32) if mean.any() else None


@dataclass(frozen=True)
class AuxSpace:
    """Vectors outside of any language model, by which tokens are compared.

    Attributes:
        names: Words, or raw token strings where row index = token id; unique.
        vectors: `(n, dim)` float32; a zero row means "no vector".
        counts: `(n,)` int64 frequencies; ones where the source of the vectors states none.
        ngrams: Table for unseen strings, or None.
    """

    names: tuple[str, ...]
    vectors: np.ndarray
    counts: np.ndarray
    ngrams: NgramTable | None = None

    @classmethod
    def of(
        cls,
        names: Iterable[str],
        vectors: np.ndarray,
        counts: Sequence[int] | np.ndarray | None = None,
        ngrams: NgramTable | None = None,
    ) -> AuxSpace:
        """Build from anything array-like; `counts` defaults to ones.

        Raises:
            ValueError: Lengths that differ.
        """
        listed = tuple(names)
        matrix = np.ascontiguousarray(vectors, dtype=np.float32)
        number = (
            np.ones(len(listed), dtype=np.int64) if counts is None else np.asarray(counts, dtype=np.int64)
        )
        if matrix.ndim != 2 or not len(listed) == len(matrix) == len(number):
            raise ValueError(f"{len(listed)} names, {matrix.shape} vectors and {len(number)} counts")
        return cls(listed, matrix, number, ngrams)

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self.vectors.shape[1])

    @cached_property
    def known(self) -> np.ndarray:
        """`(n,)` bool: rows that are not zero."""
        return np.asarray(self.vectors.any(axis=1))

    @cached_property
    def index(self) -> dict[str, int]:
        """Row of each name."""
        return {name: row for row, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        row = self.index.get(name) if isinstance(name, str) else None
        return row is not None and bool(self.known[row])

    def vector(self, name: str) -> np.ndarray | None:
        """Vector of a name, composed from n-grams where it is unseen and a table exists; else None."""
        row = self.index.get(name)
        if row is not None and self.known[row]:
            return self.vectors[row]
        return self.ngrams.compose(name) if self.ngrams else None
