"""Masked language modelling: hide words, predict them from both sides."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.objectives._base import BatchShape, Objective, objectives

if TYPE_CHECKING:
    from torch import Tensor

    from warmstart.objectives._words import WordTable


class MaskedSettings(Settings):
    """Options of masked language modelling."""

    mlm_probability: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are predicted."""
    whole_word_masking: bool = True
    """Choose whole words instead of single tokens."""
    mask_replace_prob: float = Field(default=0.8, ge=0, le=1)
    """Share of the chosen tokens that become the mask token."""
    random_replace_prob: float = Field(default=0.1, ge=0, le=1)
    """Share of the chosen tokens that become a random token; the rest stay as they are."""
    add_boundaries: bool = True
    """Write the tokenizer's first and last special token ([CLS], [SEP]) over the ends of each block, so that
    training inputs look like those that the tokenizer makes."""


@objectives.register(
    "masked",
    settings=MaskedSettings,
    title="BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding",
    arxiv="1810.04805",
    tags=("masked", "random"),
)
class Masked(Objective):
    """Masked language modelling with whole-word masking (that of the BERT repository of May 2019).

    In each block words are taken in random order until 15 % of its tokens are chosen; of the chosen tokens 80
    % become the mask, 10 % a random token, 10 % stay; all chosen tokens are predicted. A word is taken when
    at least half of it still fits, which makes the expected share exact; the released BERT code takes words
    that fit entirely, and so masks fewer of the long ones. Where no word fits (one giant word) single tokens
    are chosen. Words are read off the ids (`objectives._words`), so packed blocks are enough.

    What happens to a chosen token (80/10/10) is drawn token by token, as in BERT.
    """

    task = "masked"
    settings: MaskedSettings

    @cached_property
    def table(self) -> WordTable:
        """How the vocabulary's entries begin and end."""
        from warmstart.objectives._words import word_table

        return word_table(self.tokenizer)

    @cached_property
    def _ends(self) -> tuple[int | None, int | None]:
        from warmstart.evaluation.special import surrounding

        before, after = surrounding(self.tokenizer)
        return (before[0] if before else None, after[-1] if after else None)

    def shape(self, tokens: int) -> BatchShape:
        """The head is computed for the chosen tokens only."""
        return BatchShape(tokens, predicted=self.settings.mlm_probability)

    def collate(self, blocks: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """`input_ids` with masks and `labels`, both (B, L)."""
        import torch

        from warmstart.evaluation.special import mask_token

        mask = mask_token(self.tokenizer)
        ids = blocks.astype(np.int64)
        if self.settings.add_boundaries and ids.shape[1] > 2:
            first, last = self._ends
            if first is not None:
                ids[:, 0] = first
            if last is not None:
                ids[:, -1] = last
        chosen = self.choose(ids, rng)
        labels = np.where(chosen, ids, -100)
        draw = rng.random(ids.shape)
        masked, random = self.settings.mask_replace_prob, self.settings.random_replace_prob
        substitute = self.table.regular[rng.integers(len(self.table.regular), size=ids.shape)]
        inputs = np.where(chosen & (draw < masked), mask, ids)
        inputs = np.where(chosen & (draw >= masked) & (draw < masked + random), substitute, inputs)
        return {"input_ids": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)}

    def choose(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Which tokens are to be predicted, (B, L) boolean; never a special token."""
        rows, length = ids.shape
        special = self.table.special[ids]
        starts = (
            self.table.starts(ids) if self.settings.whole_word_masking else np.ones(ids.shape, dtype=bool)
        )
        word = np.cumsum(starts, axis=1) - 1  # number of the word in its row
        flat = word + np.arange(rows)[:, None] * length
        size = np.bincount(flat.ravel(), weights=~special.ravel(), minlength=rows * length)
        size = size.reshape(rows, length)
        key = np.where(size > 0, rng.random((rows, length)), 2.0)
        order = np.argsort(key, axis=1, kind="stable")
        ordered = np.take_along_axis(size, order, axis=1)
        budget = self.settings.mlm_probability * (~special).sum(axis=1, keepdims=True)
        taken = (np.cumsum(ordered, axis=1) - ordered / 2 <= budget) & (ordered > 0)
        fits = np.zeros((rows, length), dtype=bool)
        np.put_along_axis(fits, order, taken, axis=1)
        chosen = np.take_along_axis(fits, word, axis=1)
        key = np.where(special, 2.0, rng.random((rows, length)))
        rank = np.argsort(np.argsort(key, axis=1, kind="stable"), axis=1, kind="stable")
        single = (rank < np.maximum(1, np.rint(budget))) & ~special
        return np.where(chosen.any(axis=1, keepdims=True), chosen, single)
