"""A row mix with weights of its own for the head of an untied model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.vocabulary.mix import RowMix

if TYPE_CHECKING:
    from warmstart.vocabulary.computed import Which


@dataclass(frozen=True)
class TwoMixes(RowMix):
    """`E_t = W E_s` and `U_t = W' U_s`: what a plain mix does with one matrix of weights, with two.

    Copies of shared tokens and mean rows are set in both; the head bias follows the head's weights, so that
    logits of a mixed token are the same mixture of the source's logits. Tied models use the input's weights.

    Attributes:
        head: Weights and marks of the head rows.
    """

    head: RowMix | None = None

    @classmethod
    def of(cls, rows: RowMix, head: RowMix) -> TwoMixes:
        """Input weights and head weights of the same shape as one mix."""
        return cls(rows.weights, rows.fallback, rows.mean, rows.noise, head)

    @property
    def of_head(self) -> RowMix:
        """The head's mix."""
        assert self.head is not None
        return self.head

    def check(self) -> TwoMixes:
        """As in [`RowMix`][warmstart.vocabulary.mix.RowMix], for both."""
        super().check()
        self.of_head.check()
        return self

    def with_copies(self, pairs: np.ndarray) -> TwoMixes:
        """As in `RowMix`, for both."""
        return TwoMixes.of(RowMix.with_copies(self._input, pairs), self.of_head.with_copies(pairs))

    def with_mean(self, target_ids: np.ndarray) -> TwoMixes:
        """As in `RowMix`, for both."""
        return TwoMixes.of(RowMix.with_mean(self._input, target_ids), self.of_head.with_mean(target_ids))

    def apply(self, rows: np.ndarray, *, which: Which = "input", **options: Any) -> np.ndarray:
        """As in `RowMix`; `which` says whose weights are used."""
        if which == "head":
            return self.of_head.apply(rows, which=which, **options)
        return super().apply(rows, which=which, **options)

    def apply_bias(self, bias: np.ndarray, *, reference: np.ndarray | None = None) -> np.ndarray:
        """As in `RowMix`, with the head's weights."""
        return self.of_head.apply_bias(bias, reference=reference)

    @property
    def _input(self) -> RowMix:
        return RowMix(self.weights, self.fallback, self.mean, self.noise)
