"""Sentence vectors as a teacher has them: the objective."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from warmstart.foundation.settings import Settings
from warmstart.objectives._base import BatchShape, Objective
from warmstart.objectives._numbered import encoder_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


class SentenceLossSettings(Settings):
    """What of a teacher's sentence vectors a student learns."""

    match: Literal["vectors", "similarities"] = "vectors"
    """`vectors`: the vectors themselves, which needs a student of the teacher's width. `similarities`: the
    cosines between the sentences of a batch, for a student of any width."""


def sentence_loss(vectors: Tensor, taught: Tensor, match: Literal["vectors", "similarities"]) -> Tensor:
    """Summed loss of sentence vectors `(B, d)` against those of a teacher `(B, D)`, over the B sentences.

    Of unit vectors `s` and `t`, sentence i has

    - `vectors`: `|s_i - t_i|^2 = 2 - 2 cos(s_i, t_i)` ("Making Monolingual Sentence Embeddings Multilingual
      using Knowledge Distillation", arXiv 2004.09813, whose vectors keep their lengths);
    - `similarities`: the mean over the other sentences j of `(s_i s_j - t_i t_j)^2` (after "Similarity-
      Preserving Knowledge Distillation", arXiv 1907.09682, whose rows of products are scaled to length one
      and hold the sentence itself). It knows no direction: any rotation of the student costs the same.
    """
    import torch
    from torch.nn import functional as F

    ours, theirs = F.normalize(vectors, dim=1), F.normalize(taught, dim=1)
    if match == "vectors":
        return (ours - theirs).square().sum()
    apart = (ours @ ours.T - theirs @ theirs.T).square()
    others = ~torch.eye(len(ours), dtype=torch.bool, device=ours.device)
    return (apart * others).sum() / max(1, len(ours) - 1)


class Sentences(Objective):
    """Sentence vectors of a teacher, see [`sentence_loss`][warmstart.objectives._sentences.sentence_loss].

    The teacher has read every text before, once and in its own tokens, so it costs nothing in a step. It is
    no objective by name: it needs a teacher's vectors, which the step `train-sentences` brings. Of
    similarities each forward pass sees its own sentences only: gradient accumulation and further processes
    add sentences, but no pairs between them.

    Args:
        settings: What is learned.
        tokenizer: Of the student.
        taught: Vectors of the teacher by number of the text, `(N, D)`.
    """

    task = "masked"

    def __init__(
        self, settings: SentenceLossSettings, tokenizer: PreTrainedTokenizerBase, *, taught: np.ndarray
    ) -> None:
        super().__init__(settings, tokenizer)
        self._taught = taught
        told = settings.digest().encode() + np.ascontiguousarray(taught).tobytes()
        self.fingerprint = hashlib.sha256(told).hexdigest()[:16]

    def shape(self, tokens: int) -> BatchShape:
        """The whole block is read: an upper bound, as batches end with their longest text."""
        return BatchShape(tokens, predicted=0.0)

    def collate(self, blocks: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask`, (B, L'), and the teacher's vectors `taught`, (B, D)."""
        import torch

        taught = torch.from_numpy(self._taught[blocks[:, 1, 0]])
        return encoder_inputs(blocks, self.tokenizer) | {"taught": taught}

    def inputs(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Without the teacher's vectors."""
        return {name: batch[name] for name in ("input_ids", "attention_mask")}

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], companions: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sum over the texts of the batch, and their number.

        Args:
            model: An encoder without a head.
            batch: As `collate` makes it.
            companions: There are none.
        """
        import torch

        from warmstart.evaluation.retrieval import mean_over

        options: Any = self.settings
        inputs = self.inputs(model, batch)
        vectors = mean_over(model(**inputs).last_hidden_state, inputs["attention_mask"])
        wide = torch.promote_types(vectors.dtype, torch.float32)
        with torch.autocast(vectors.device.type, enabled=False):
            total = sentence_loss(vectors.to(wide), batch["taught"].to(wide), options.match)
        return total, total.new_tensor(float(len(vectors)))
