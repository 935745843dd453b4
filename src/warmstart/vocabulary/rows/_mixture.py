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
_BLOCK = 1 << 20  # weights computed at a time (4 MB: what is done to a block finds it in the cache)
_KEPT = 1 << 27  # weights kept for the gradient (512 MB); of more, they are computed a second time
_LARGE = 1 << 23  # numbers in a source matrix from which products are made in bfloat16, unless told otherwise


@dataclass
class Mixture:
    """`A = softmax(A_0 + A_1 A_2)`, `(n, m)`: mixtures of n new tokens over the m source rows in use.

    A tied model has one A. An untied one has a second one for its head, or one for both places.

    Attributes:
        ids: `(n,)` target ids of the new tokens.
        used: `(m,)` source ids that may be mixed (padding rows are not among them).
        start_weights: Sparse `(n, m)` start; rows sum to one or are empty.
        factors: For the input and, with mixtures of its own, the head: `A_1` `(n, rank)`, drawn, and `A_2`
            `(rank, m)`, zero at first.
        source: Row of `matrices` that each target id copies `(V_target,)`; -1 for those mixed.
        matrices: Frozen source rows `(V_source, d)`, input and, if untied, head.
        pools: Their rows of `used` (views where these are consecutive).
        bf16: Whether the large products are made in bfloat16.
    """

    ids: np.ndarray
    used: np.ndarray
    start_weights: csr_matrix
    factors: list[tuple[torch.Tensor, torch.Tensor]]
    source: np.ndarray
    matrices: list[torch.Tensor]
    pools: list[torch.Tensor]
    bf16: bool = False

    @classmethod
    def start(
        cls,
        context: RowContext,
        how: Literal["pieces", "uniform"],
        rank: int,
        *,
        own_head: bool = False,
        bf16: bool | None = None,
    ) -> Mixture:
        """The mixtures before training; every draw comes from the context's generator.

        Args:
            context: Vocabularies and rows.
            how: The mean of pieces, or all source tokens alike.
            rank: Width between the factors.
            own_head: Whether an untied head has mixtures of its own.
            bf16: Whether the large products are made in bfloat16; None for "where it pays".
        """
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
        given = [context.rows] + ([context.head_rows] if context.head_rows is not None else [])
        matrices = [torch.from_numpy(matrix.astype(np.float32, copy=False)) for matrix in given]
        factors = []
        for _ in matrices if own_head else matrices[:1]:
            drawn = context.rng.standard_normal((len(ids), rank), dtype=np.float32) / float(rank) ** 0.5
            left = torch.from_numpy(drawn).requires_grad_()
            factors.append((left, torch.zeros(rank, len(used), requires_grad=True)))
        whole = len(used) and used[-1] - used[0] + 1 == len(used)
        places: Any = slice(int(used[0]), int(used[-1]) + 1) if whole else torch.from_numpy(used)
        pools = [matrix[places] for matrix in matrices]
        quick = bf16_pays(pools[0].numel()) if bf16 is None else bf16
        return cls(ids, used, weights, factors, source, matrices, pools, quick)

    @property
    def parameters(self) -> list[torch.Tensor]:
        """What is trained."""
        return [factor for pair in self.factors for factor in pair]

    @property
    def has_pieces(self) -> np.ndarray:
        """`(n,)` bool: tokens whose start says something."""
        return np.asarray(np.diff(self.start_weights.indptr) > 0)

    def weights(self, numbers: np.ndarray, which: int = 0) -> torch.Tensor:
        """Mixtures `(len(numbers), m)` of some of the new tokens, by their place in `ids`; no gradient.

        Args:
            numbers: Places in `ids`.
            which: 0 for the input, 1 for the head.
        """
        import torch

        left, right = self.factors[min(which, len(self.factors) - 1)]
        start = self.start_weights[numbers]
        logits = left.detach()[torch.from_numpy(numbers)] @ right.detach()
        logits[torch.from_numpy(_rows_of(start)), torch.from_numpy(start.indices)] += self._raised(start)
        return torch.softmax(logits, dim=1)

    def rows(self, tokens: np.ndarray, which: int = 0) -> torch.Tensor:
        """Rows `(k, d)` of target tokens `(k,)`, copied or mixed; each mixture is computed once.

        Args:
            tokens: Target ids.
            which: 0 for input rows, 1 for head rows (a tied model has the former only).
        """
        import torch

        which = min(which, len(self.matrices) - 1)
        mixed = np.flatnonzero(self.source[tokens] < 0)
        distinct, place = np.unique(tokens[mixed], return_inverse=True)
        numbers = np.searchsorted(self.ids, distinct)
        copied = torch.from_numpy(np.maximum(self.source[tokens], 0))
        fresh = self._mixed(numbers, which)[torch.from_numpy(place)]
        return self.matrices[which][copied].index_copy(0, torch.from_numpy(mixed), fresh)

    def _mixed(self, numbers: np.ndarray, which: int) -> torch.Tensor:
        """Mixed rows `(len(numbers), d)` of a matrix."""
        import torch

        left, right = self.factors[min(which, len(self.factors) - 1)]
        start = self.start_weights[numbers]
        return mixed_rows(
            left[torch.from_numpy(numbers)],
            right,
            self.pools[which],
            start,
            self._raised(start),
            bf16=self.bf16,
        )

    def _raised(self, start: csr_matrix) -> torch.Tensor:
        """By how much A_0 is higher at the start's entries than elsewhere in a row, in float32.

        `A_0 = log((1 - r) start + r / m)`; a constant added to a row changes no softmax, so that A_0 is zero
        where the start is.
        """
        import torch

        share = (1 - _REST) / _REST * len(self.used)
        return torch.from_numpy(np.log1p(share * start.data.astype(np.float64)).astype(np.float32))

    def keep_start(self, numbers: np.ndarray) -> None:
        """Take training back for some tokens: a shared factor moves also those that no pair has shown."""
        import torch

        with torch.no_grad():
            for left, _ in self.factors:
                left[torch.from_numpy(numbers)] = 0.0

    def as_mix(
        self, shape: tuple[int, int], filled: np.ndarray, top_k: int, which: int = 0, block: int = 256
    ) -> RowMix:
        """The `top_k` largest weights of each row of `filled` `(n,)`, scaled to sum one; others fall back."""
        import torch

        numbers = np.flatnonzero(filled)
        parts: list[tuple[Any, ...]] = []
        for start in range(0, len(numbers), block):
            part = numbers[start : start + block]
            with torch.inference_mode():
                best = self.weights(part, which).topk(min(top_k, len(self.used)), dim=1)
            values = best.values.numpy().astype(np.float64)
            kept = values >= _LEAST * values[:, :1]
            row = np.repeat(self.ids[part], kept.sum(axis=1))
            parts.append((row, self.used[best.indices.numpy()[kept]], values[kept]))
        if not parts:
            return RowMix.from_entries(shape, [], [])
        return RowMix.from_entries(shape, *(np.concatenate(part) for part in zip(*parts)))


def mixed_rows(
    left: torch.Tensor,
    right: torch.Tensor,
    pool: torch.Tensor,
    start: csr_matrix,
    raised: torch.Tensor,
    *,
    bf16: bool = False,
) -> torch.Tensor:
    """`softmax(A_0 + left right) pool`, `(u, d)`, with gradients for both factors.

    Works in blocks of rows: of `(u, m)` numbers only the softmax A is kept for the gradient, or nothing where
    that would be more than 512 MB. With G the gradient of the rows and `R = A pool`,
    `dA_0 = A (G pool^T - rowsum(G R))`, from which those of the factors follow.

    In bfloat16 the rows are those of the start, in full precision, plus `(A - start) pool`: what is rounded
    (to 1/256) is what training has changed, and its gradient.

    Args:
        left: `(u, rank)`.
        right: `(rank, m)`.
        pool: `(m, d)`, no gradient.
        start: Sparse `(u, m)`: where A_0 is not zero; each row a mixture, or empty.
        raised: A_0 there, in the order of `start.data`.
        bf16: Whether products as large as `(u, m)` by `(m, d)` are made in bfloat16.
    """
    import torch

    count, width = left.shape[0], right.shape[1]
    step = max(64, _BLOCK // max(1, width))
    blocks = [slice(begin, min(begin + step, count)) for begin in range(0, count, step)]
    row, column = (torch.from_numpy(a.astype(np.int64)) for a in (_rows_of(start), start.indices))
    keep = count * width <= _KEPT
    low = torch.bfloat16 if bf16 else pool.dtype
    narrow = pool.to(low)
    first = torch.from_numpy(start.data).to(pool.dtype)
    begun = torch.from_numpy(start.astype(pool.numpy().dtype) @ pool.numpy()) if bf16 else None

    def softmax(left: torch.Tensor, right: torch.Tensor, block: slice) -> torch.Tensor:
        logits = left[block] @ right
        inside = slice(int(start.indptr[block.start]), int(start.indptr[block.stop]))
        logits[row[inside] - block.start, column[inside]] += raised[inside].to(logits.dtype)
        return torch.softmax(logits, dim=1)

    def rows(weights: torch.Tensor, block: slice) -> torch.Tensor:
        if begun is None:
            return weights @ pool
        inside = slice(int(start.indptr[block.start]), int(start.indptr[block.stop]))
        changed, place = weights.to(low), (row[inside] - block.start, column[inside])
        changed[place] = (weights[place] - first[inside]).to(low)
        return begun[block] + changed @ narrow

    class Mixed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            out, kept = pool.new_empty(count, pool.shape[1]), []
            for block in blocks:
                weights = softmax(left, right, block)
                out[block] = rows(weights, block)
                if keep:
                    kept.append(weights)
            ctx.save_for_backward(left, right, out)
            ctx.kept = kept
            return out

        @staticmethod
        def backward(ctx: Any, given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            left, right, out = ctx.saved_tensors
            inner = (given * out).sum(dim=1, keepdim=True)
            of_left, of_right, flat = torch.empty_like(left), torch.zeros_like(right), right.T.to(low)
            for number, block in enumerate(blocks):
                weights = ctx.kept[number] if keep else softmax(left, right, block)
                change = given[block].to(low) @ narrow.T - inner[block]  # in the precision of `inner`
                change = change.mul_(weights).to(low)
                of_left[block] = change @ flat
                of_right += left[block].T.to(low) @ change
            return of_left, of_right

    found: torch.Tensor = Mixed.apply(left, right)
    return found


def bf16_pays(numbers: int) -> bool:
    """Whether products with a source matrix of so many numbers are made in bfloat16.

    They are four times as fast where the processor has instructions for it, and slower elsewhere.
    """
    import torch

    return numbers >= _LARGE and bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def _rows_of(matrix: csr_matrix) -> np.ndarray:
    """Row of each stored entry."""
    return np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
