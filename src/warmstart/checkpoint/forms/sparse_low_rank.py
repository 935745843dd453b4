"""Sparse and low-rank weights: two thin factors and a few entries, in the place of a matrix or beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import nn

from warmstart.checkpoint.forms import forms
from warmstart.checkpoint.forms._wrapped import WrappedForm
from warmstart.checkpoint.forms.low_rank import LowRank, open_factors


class SparseLowRank(LowRank):
    """`W = W_0 + s (B A + S)`: S has entries at fixed positions, whose values learn.

    A mask on W_0 (DSEE's S_1) needs no place of its own: W_0 is frozen, so its zeros stay zeros.

    Args:
        old: The map that it replaces.
        base: W_0 `(outputs, inputs)` or None.
        b: B `(outputs, r)`.
        a: A `(r, inputs)`.
        alpha: The update counts `alpha / r` times.
        positions: Places of the entries in the flattened matrix, `(N,)`.
        values: The entries `(N,)`.
    """

    keys = ("rank", "alpha", "frozen", "entries")

    positions: torch.Tensor

    def __init__(
        self,
        old: nn.Module,
        base: torch.Tensor | None,
        b: torch.Tensor,
        a: torch.Tensor,
        alpha: float,
        positions: torch.Tensor,
        values: torch.Tensor,
    ) -> None:
        super().__init__(old, base, b, a, alpha)
        self.register_buffer("positions", positions)
        self.values = nn.Parameter(values)
        self.entries = len(values)

    @classmethod
    def empty(cls, old: nn.Module, sizes: Mapping[str, Any]) -> Self:
        """A map of these sizes with open values."""
        weight: Any = old.weight
        base, b, a = open_factors(old, sizes)
        entries = int(sizes["entries"])
        positions = torch.zeros(entries, dtype=torch.int64, device=weight.device)
        return cls(old, base, b, a, sizes["alpha"], positions, weight.new_empty(entries))

    def _with_entries(self, matrix: torch.Tensor) -> torch.Tensor:
        """The matrix plus `s S`."""
        return matrix.flatten().index_add(0, self.positions, self.values * self.scale).view_as(matrix)

    def update(self) -> torch.Tensor:
        """`s (B A + S)` `(outputs, inputs)`."""
        return self._with_entries(super().update())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`(W_0 + s S) x + s B (A x) + b`."""
        kept = self.b.new_zeros(self.out_features, self.in_features) if self.base is None else self.base
        thin = nn.functional.linear(nn.functional.linear(x, self.a), self.b) * self.scale
        return nn.functional.linear(x, self._with_entries(kept), self.bias) + thin


forms.register(
    "sparse-low-rank",
    title="DSEE: Dually Sparsity-embedded Efficient Tuning of Pre-trained Language Models",
    arxiv="2111.00160",
)(WrappedForm(SparseLowRank))
