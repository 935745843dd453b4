"""Rows that are computed otherwise than by mixing: by a map, a network, a distribution, given features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from warmstart.vocabulary.mix import RowMix, moments

Which = Literal["input", "head"]


class RowFunction(Protocol):
    """Computes target rows from a source matrix."""

    def __call__(
        self,
        ids: np.ndarray,
        rows: np.ndarray,
        *,
        which: Which,
        reference: np.ndarray | None,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Rows `(len(ids), d)` of the target tokens `ids`.

        Args:
            ids: Target ids, ascending.
            rows: Source input or head rows `(V_source, d)`.
            which: Which of the two; tied models are asked for `input` only.
            reference: Source ids that a token uses (padding left out); None for all.
            rng: The only source of randomness.
        """


def _nothing(ids: np.ndarray, rows: np.ndarray, **_: object) -> np.ndarray:
    raise RuntimeError("a ComputedMix needs the function that computes its rows")


@dataclass(frozen=True)
class ComputedMix(RowMix):
    """A row mix some of whose rows come from a function of the source matrix instead of weights.

    The function fills the rows that have neither weights nor a mark (fallback, mean), so that copies of
    shared and special tokens win as in every mix. It is asked once per matrix; an untied head is another
    matrix. The head bias of computed rows is the mean bias, as of new types in IndoBERTweet.

    Attributes:
        compute: See [`RowFunction`][warmstart.vocabulary.computed.RowFunction].
    """

    compute: RowFunction = _nothing

    @classmethod
    def of(cls, shape: tuple[int, int], ids: np.ndarray, compute: RowFunction) -> ComputedMix:
        """A mix without weights: `compute` fills the target `ids`, all others fall back to N(mu, sd)."""
        from scipy.sparse import csr_matrix

        fallback = np.ones(shape[0], dtype=bool)
        fallback[ids] = False
        return cls(csr_matrix(shape), fallback, compute=compute)

    @property
    def computed(self) -> np.ndarray:
        """`(V_target,)` bool: rows that the function fills."""
        return ~(self.fallback | self.mean) & (np.diff(self.weights.indptr) == 0)

    def check(self) -> ComputedMix:
        """As in [`RowMix`][warmstart.vocabulary.mix.RowMix]; computed rows need no weights."""
        RowMix(self.weights, self.fallback | self.computed, self.mean, self.noise).check()
        return self

    def fill(
        self,
        out: np.ndarray,
        rows: np.ndarray,
        *,
        which: Which,
        reference: np.ndarray | None,
        rng: np.random.Generator,
    ) -> None:
        """Put the computed rows into `out`, after all others are there."""
        ids = np.flatnonzero(self.computed)
        if len(ids):
            out[ids] = self.compute(ids, rows, which=which, reference=reference, rng=rng)

    def apply_bias(self, bias: np.ndarray, *, reference: np.ndarray | None = None) -> np.ndarray:
        """As in `RowMix`; computed rows get the mean bias."""
        out = super().apply_bias(bias, reference=reference)
        out[self.computed] = moments(bias[:, None].astype(np.float64), reference)[0][0]
        return out
