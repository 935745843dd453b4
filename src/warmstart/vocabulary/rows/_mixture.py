"""Trainable convex mixtures of frozen source rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from warmstart.vocabulary.mix import RowMix

if TYPE_CHECKING:
    import torch
    from scipy.sparse import csr_matrix

    from warmstart.vocabulary.rows._base import RowContext

_REST = 0.01  # share that the start leaves to all source tokens, so that a softmax can reach each
_LEAST = 1e-3  # finished weights below this share of a row's largest are left out: the rest of the start
_BLOCK = 1 << 23  # weights computed at a time (32 MB)


@dataclass
class Rows:
    """Input and output (head) rows of the same tokens, `(n, d)` each; one tensor in a tied model."""

    input: torch.Tensor
    output: torch.Tensor


@dataclass
class Mixture:
    """`A = softmax(A_0 + A_1 A_2)`, `(n, m)`: mixtures of n new tokens over the m source rows in use.

    Attributes:
        ids: `(n,)` target ids of the new tokens.
        used: `(m,)` source ids that may be mixed (padding rows are not among them).
        start_weights: Sparse `(n, m)` start; rows sum to one or are empty.
        left: `A_1` `(n, rank)`, drawn.
        right: `A_2` `(rank, m)`, zero at first.
        source: Row of `matrices` that each target id copies `(V_target,)`; -1 for those mixed.
        matrices: Frozen source rows `(V_source, d)`, input and, if untied, head.
        pools: Their rows of `used` (views where these are consecutive).
    """

    ids: np.ndarray
    used: np.ndarray
    start_weights: csr_matrix
    left: torch.Tensor
    right: torch.Tensor
    source: np.ndarray
    matrices: list[torch.Tensor]
    pools: list[torch.Tensor]

    @classmethod
    def start(cls, context: RowContext, how: Literal["pieces", "uniform"], rank: int) -> Mixture:
        """The mixtures before training; every draw comes from the context's generator."""
        import torch
        from scipy.sparse import csr_matrix

        ids, used = context.wanted, context.vocab.source_used
        column = np.full(context.shape[1], -1, dtype=np.int64)
        column[used] = np.arange(len(used))
        pieces = [context.vocab.pieces(int(i)) if how == "pieces" else [] for i in ids]
        counts = np.array([len(found) for found in pieces], dtype=np.int64)
        row = np.repeat(np.arange(len(ids)), counts)
        flat = column[np.array([p for found in pieces for p in found], dtype=np.int64)]
        weights = csr_matrix((1.0 / counts[row], (row, flat)), shape=(len(ids), len(used)))
        source = np.full(context.shape[0], -1, dtype=np.int64)
        source[context.vocab.matched[:, 0]] = context.vocab.matched[:, 1]
        source[ids] = -1
        drawn = context.rng.standard_normal((len(ids), rank), dtype=np.float32) / float(rank) ** 0.5
        given = [context.rows] + ([context.head_rows] if context.head_rows is not None else [])
        matrices = [torch.from_numpy(matrix.astype(np.float32, copy=False)) for matrix in given]
        whole = len(used) and used[-1] - used[0] + 1 == len(used)
        places: Any = slice(int(used[0]), int(used[-1]) + 1) if whole else torch.from_numpy(used)
        return cls(
            ids,
            used,
            weights,
            torch.from_numpy(drawn).requires_grad_(),
            torch.zeros(rank, len(used), requires_grad=True),
            source,
            matrices,
            [matrix[places] for matrix in matrices],
        )

    @property
    def parameters(self) -> list[torch.Tensor]:
        """What is trained."""
        return [self.left, self.right]

    @property
    def has_pieces(self) -> np.ndarray:
        """`(n,)` bool: tokens whose start says something."""
        return np.asarray(np.diff(self.start_weights.indptr) > 0)

    def weights(self, numbers: np.ndarray) -> torch.Tensor:
        """Mixtures `(len(numbers), m)` of some of the new tokens, by their place in `ids`."""
        import torch

        start = np.full((len(numbers), len(self.used)), 1.0 / len(self.used), dtype=np.float32)
        given = self.start_weights[numbers]
        start[np.diff(given.indptr) > 0] *= _REST
        row = np.repeat(np.arange(len(numbers)), np.diff(given.indptr))
        start[row, given.indices] += (1 - _REST) * given.data.astype(np.float32)
        logits = torch.from_numpy(np.log(start)) + self.left[torch.from_numpy(numbers)] @ self.right
        return torch.softmax(logits, dim=1)

    def rows_of(self, tokens: np.ndarray) -> Rows:
        """Rows of target tokens `(k,)`, copied or mixed; each mixture is computed once."""
        import torch

        mixed = np.flatnonzero(self.source[tokens] < 0)
        distinct, place = np.unique(tokens[mixed], return_inverse=True)
        numbers = np.searchsorted(self.ids, distinct)
        copied = torch.from_numpy(np.maximum(self.source[tokens], 0))
        where, which = torch.from_numpy(mixed), torch.from_numpy(place)
        fresh = self._mixed_rows(numbers)
        made = [
            matrix[copied].index_copy(0, where, rows[which]) for matrix, rows in zip(self.matrices, fresh)
        ]
        return Rows(made[0], made[-1])

    def _mixed_rows(self, numbers: np.ndarray) -> list[torch.Tensor]:
        """Mixed rows of each matrix; blocks of weights are computed again where a gradient needs them."""
        import torch
        from torch.utils.checkpoint import checkpoint

        def part(block: np.ndarray) -> tuple[torch.Tensor, ...]:
            weights = self.weights(block)
            return tuple(weights @ pool for pool in self.pools)

        step = max(1, _BLOCK // max(1, len(self.used)))
        if len(numbers) <= step:
            return list(part(numbers))
        parts = [
            checkpoint(part, numbers[start : start + step], use_reentrant=False, preserve_rng_state=False)
            for start in range(0, len(numbers), step)
        ]
        return [torch.cat(rows) for rows in zip(*parts)]

    def keep_start(self, numbers: np.ndarray) -> None:
        """Take training back for some tokens: a shared factor moves also those that no pair has shown."""
        import torch

        with torch.no_grad():
            self.left[torch.from_numpy(numbers)] = 0.0

    def as_mix(self, shape: tuple[int, int], filled: np.ndarray, top_k: int, block: int = 256) -> RowMix:
        """The `top_k` largest weights of each row of `filled` `(n,)`, scaled to sum one; others fall back."""
        import torch

        numbers = np.flatnonzero(filled)
        parts: list[tuple[Any, ...]] = []
        for start in range(0, len(numbers), block):
            part = numbers[start : start + block]
            with torch.inference_mode():
                best = self.weights(part).topk(min(top_k, len(self.used)), dim=1)
            values = best.values.numpy().astype(np.float64)
            kept = values >= _LEAST * values[:, :1]
            row = np.repeat(self.ids[part], kept.sum(axis=1))
            parts.append((row, self.used[best.indices.numpy()[kept]], values[kept]))
        if not parts:
            return RowMix.from_entries(shape, [], [])
        return RowMix.from_entries(shape, *(np.concatenate(part) for part in zip(*parts)))
