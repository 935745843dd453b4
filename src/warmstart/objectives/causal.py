"""Causal language modelling: predict each token from those before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warmstart.objectives._base import BatchShape, Objective, objectives

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@objectives.register("causal", title="Next-token prediction", tags=("causal",))
class Causal(Objective):
    """Next-token prediction: `-sum_i log p(x_{i+1} | x_1 … x_i)` over the L - 1 targets of each block.

    Text packed from several documents is read across their boundaries, as GPT-2 and its successors were
    trained; the end-of-text token between them tells the model. Labels are the ids themselves, the shift
    happens in the loss, as everywhere in transformers. Ids below zero are padding at the end of a block.
    Blocks (2, L) hold ids, and in the second row those that are asked for; the others are read only.
    """

    task = "causal"

    def shape(self, tokens: int) -> BatchShape:
        """The last token of a block has nothing to predict."""
        return BatchShape(tokens, predicted=(tokens - 1) / tokens)

    def collate(self, blocks: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """`input_ids` and `labels`, both (B, L), and equal unless the blocks say what is asked for."""
        import torch

        read, asked = (blocks[:, 0], blocks[:, 1]) if blocks.ndim == 3 else (blocks, blocks)
        ids, labels = (torch.from_numpy(part.astype("int64")) for part in (read, asked))
        return {"input_ids": ids.clamp(min=0), "labels": labels.masked_fill(labels < 0, -100)}

    def reading(self, batch: dict[str, Tensor]) -> Tensor | None:
        """Up to the last label of a block, behind which only padding stands."""
        if (mask := super().reading(batch)) is not None or "labels" not in batch:
            return mask
        found = batch["labels"] != -100
        return found.flip(-1).cumsum(-1).flip(-1) > 0

    def targets(self, labels: Tensor) -> Tensor:
        """Labels shifted left by one; the last position predicts nothing."""
        from torch.nn import functional as F

        return F.pad(labels[:, 1:], (0, 1), value=-100)
