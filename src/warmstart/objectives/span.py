"""Span corruption: replace spans by sentinels, write the spans."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.objectives._base import BatchShape, Objective, objectives

if TYPE_CHECKING:
    from torch import Tensor, nn


class SpanSettings(Settings):
    """Options of span corruption."""

    noise_density: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that are replaced."""
    mean_noise_span_length: float = Field(default=3.0, ge=1)
    """Mean length of the replaced spans, tokens."""


@objectives.register(
    "span",
    settings=SpanSettings,
    title="Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
    arxiv="1910.10683",
    tags=("seq2seq", "random"),
)
class Span(Objective):
    """T5's span corruption.

    Each block of L tokens is cut into m kept and m replaced spans, alternating and beginning with a kept one;
    `round(0.15 L)` tokens are replaced and `m = round(replaced / 3)`. Both partitions are uniform among those
    with non-empty spans, as in the released code. Span k becomes the sentinel `<extra_id_k>`:

        inputs:  kept_0 <extra_id_0> kept_1 <extra_id_1> … </s>
        labels:  <extra_id_0> span_0 <extra_id_1> span_1 … </s>

    All blocks of a batch get inputs of equal length, L - replaced + m + 1, and labels of replaced + m + 1.
    The paper's figure shows one more sentinel at the end of the labels; the released code, followed here, has
    none.
    """

    task = "seq2seq"
    settings: SpanSettings

    @cached_property
    def sentinels(self) -> np.ndarray:
        """Ids of `<extra_id_0>` …"""
        from warmstart.evaluation.special import sentinels

        return np.array(sentinels(self.tokenizer), dtype=np.int64)

    @property
    def _end(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise UserError(
                "span corruption needs an end-of-text token", fix="set eos_token of the tokenizer"
            )
        return int(self.tokenizer.eos_token_id)

    def lengths(self, tokens: int) -> tuple[int, int, int, int]:
        """Replaced tokens, spans, length of inputs and of labels for a block of `tokens`."""
        replaced = min(max(round(tokens * self.settings.noise_density), 1), tokens - 1)
        spans = max(round(replaced / self.settings.mean_noise_span_length), 1)
        spans = min(spans, replaced, tokens - replaced)
        return replaced, spans, tokens - replaced + spans + 1, replaced + spans + 1

    def shape(self, tokens: int) -> BatchShape:
        """Inputs lose the replaced spans, the decoder reads the labels."""
        _, _, inputs, labels = self.lengths(tokens)
        return BatchShape(inputs, labels)

    def collate(self, blocks: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """`input_ids` (B, L - replaced + m + 1) and `labels` (B, replaced + m + 1)."""
        import torch

        rows, length = blocks.shape
        if length < 2:
            raise UserError(
                f"a block of {length} token is too short for span corruption", fix="use longer ones"
            )
        replaced, spans, input_length, label_length = self.lengths(length)
        if spans > len(self.sentinels):
            raise UserError(
                f"blocks of {length} tokens need {spans} sentinels, the tokenizer has {len(self.sentinels)}",
                fix="use shorter blocks or longer spans",
            )
        ids = blocks.astype(np.int64)
        pieces = np.empty((rows, 2 * spans), dtype=np.int64)  # kept_0, span_0, kept_1, …
        pieces[:, 0::2] = _partition(rng, rows, length - replaced, spans)
        pieces[:, 1::2] = _partition(rng, rows, replaced, spans)
        starts = np.zeros((rows, length), dtype=np.int64)
        begins = np.cumsum(pieces, axis=1)[:, :-1]
        np.put_along_axis(starts, begins, 1, axis=1)
        piece = np.cumsum(starts, axis=1)
        opens = starts.astype(bool)
        opens[:, 0] = True
        noise = piece % 2 == 1
        mark = self.sentinels[piece // 2]
        end = np.full((rows, 1), self._end, dtype=np.int64)
        # In the labels the sentinel of span k stands where kept piece k began, that is before the span.
        inputs = np.where(noise, mark, ids)[~noise | opens].reshape(rows, input_length - 1)
        labels = np.where(noise, ids, mark)[noise | opens].reshape(rows, label_length - 1)
        return {
            "input_ids": torch.from_numpy(np.concatenate([inputs, end], axis=1)),
            "labels": torch.from_numpy(np.concatenate([labels, end], axis=1)),
        }

    def inputs(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """As for every objective; the decoder reads the labels shifted right by the model's own rule."""
        from warmstart.evaluation.head import unwrap

        found = super().inputs(model, batch)
        if "decoder_input_ids" not in found:
            found["decoder_input_ids"] = unwrap(model).prepare_decoder_input_ids_from_labels(batch["labels"])
        return found


def _partition(rng: np.random.Generator, rows: int, total: int, parts: int) -> np.ndarray:
    """Uniform random compositions of `total` into `parts` positive summands, (rows, parts)."""
    cuts = np.argsort(rng.random((rows, total - 1)), axis=1)[:, : parts - 1] + 1
    edges = np.concatenate(
        [np.zeros((rows, 1), np.int64), np.sort(cuts, axis=1), np.full((rows, 1), total)], axis=1
    )
    return np.diff(edges, axis=1)
