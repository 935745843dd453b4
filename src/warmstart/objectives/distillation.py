"""Distillation: the next token of the text and what a teacher expects there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

import numpy as np
from pydantic import model_validator

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import digest
from warmstart.objectives._base import BatchShape, objectives
from warmstart.objectives._distilled import DistillationSettings, Distilled
from warmstart.objectives.causal import Causal

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from warmstart.objectives._voice import Voice


class Cut(Protocol):
    """A student's blocks in the tokens of another vocabulary: `vocabulary.recut.Recut`."""

    shared: np.ndarray
    ratio: float
    fingerprint: str

    def __call__(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Teacher ids (m,), and for each of the student's (n,) the place of its counterpart, -1 for none."""


class CausalDistillationSettings(DistillationSettings):
    """Options of learning from a causal teacher's distribution."""

    alignment: Literal["none", "offsets", "warp"] = "none"
    """How a teacher with another vocabulary is understood. `none`: it must have the student's. `offsets`:
    where both cut the text into the same token. `warp`: where dynamic time warping of the tokens' spellings
    pairs two alike, as in the source. Elsewhere the text's own token is learned."""

    @model_validator(mode="after")
    def _understood(self) -> Self:
        if self.alignment == "none":
            return self
        if self.top_k is None:
            raise ValueError(
                "an alignment needs top_k, the number of the teacher's tokens that are carried over"
            )
        if self.divergence not in ("forward-kl", "jensen-shannon"):
            raise ValueError(
                f"{self.divergence} has no finite value where the teacher has no counterpart; with an "
                "alignment take forward-kl or jensen-shannon"
            )
        return self


@objectives.register(
    "distillation",
    settings=CausalDistillationSettings,
    title="Distilling the Knowledge in a Neural Network",
    arxiv="1503.02531",
    tags=("causal",),
)
class Distillation(Distilled, Causal):
    """Next-token prediction with a teacher: `a CE(text) + b T^2 D(teacher, student)` at each place.

    The teacher is any causal model with the same vocabulary, larger or smaller (rows of padding may differ in
    number: both distributions are those over the rows that they share). For masked and encoder-decoder models
    `distillation` stands for `masked-distillation` and `span-distillation`.

    With an `alignment` the teacher may have any other vocabulary: it reads the same text in its own tokens,
    and where it has a token for the same stretch of text it says which of the tokens that both know it
    expects there; all others are one class. Where it has none, the text's own token takes the place of its
    distribution, as in the released code of "Specializing Smaller Language Models towards Multi-Step
    Reasoning" (arXiv 2301.12726), which drops those of the teacher's five tokens that the student lacks
    instead of choosing among the others.

    The settings of the sources:

    - "Where to Begin" (subnetwork selection and distillation; whittle): `alpha: 0.3, beta: 0.7, temperature:
      10, divergence: forward-kl`, optionally `top_k`. Its stored logits give missing tokens -1e9, a zero
      probability; here the tail is a class of its own, so that the divergence stays a lower bound.
    - SALT ("A Little Help Goes a Long Way", arXiv 2410.18779) writes `(1 - w) CE + w CE(p_tau, q)` in its
      first stage, with a teacher smaller than the student, and plain training in the second: `alpha: 1 - w,
      beta: w, teacher_temperature: tau, until: 0.17` (w = 0.667, tau = 0.25, 36 of 208 thousand steps). Its
      soft cross-entropy is forward KL plus the teacher's entropy, a number without a gradient, so the steps
      are the same and the reported loss is lower by w times that entropy. The rate's schedule goes on.
    - SSLD (arXiv 2103.05959) teaches by `divergence: jensen-shannon` alone: `alpha: 0, beta: 1`.

    FLOPs count the teacher's forward pass in the steps in which it teaches, also where a cache saves it.

    Args:
        settings: Options of the objective.
        tokenizer: Tokenizer of the student.
        teacher: Frozen model.
        teacher_tokenizer: Its tokenizer.
        recut: Cuts the student's blocks for it; needed for an `alignment`.
    """

    parts: ClassVar[tuple[str, ...]] = (*Distilled.parts, "recut")

    def __init__(
        self, settings: Any, tokenizer: PreTrainedTokenizerBase, *, recut: Cut | None = None, **parts: Any
    ) -> None:
        self.recut = recut
        super().__init__(settings, tokenizer, **parts)
        if recut is not None:
            self.fingerprint = digest([self.fingerprint, recut.fingerprint])

    def speaker(self, teacher: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Voice:
        """The teacher itself, or in the student's tokens."""
        if self.recut is None:
            return super().speaker(teacher, tokenizer if self.settings.alignment == "none" else None)
        from warmstart.objectives._recut_voice import RecutVoice

        return RecutVoice(teacher, self.settings, self.recut.shared, self.recut.fingerprint)

    def prepare(self, model: nn.Module, device: torch.device) -> None:
        """Freeze the teacher and move it to `device`.

        Raises:
            UserError: As for any teacher; or an alignment is asked for, and nothing cuts the text for it.
        """
        if self.settings.alignment != "none" and self.recut is None:
            raise UserError(
                "a teacher with another vocabulary needs the text in its own tokens",
                fix="make the objective with recut=warmstart.vocabulary.recut.Recut(student, teacher)",
            )
        super().prepare(model, device)

    def shape(self, tokens: int) -> BatchShape:
        """The teacher's cut has more or fewer tokens, by the ratio that was measured."""
        found = super().shape(tokens)
        if self.recut is None or not found.teacher:
            return found
        theirs = max(1, round(found.teacher * self.recut.ratio))
        return found._replace(teacher=theirs, taught=min(1.0, found.taught * tokens / theirs))

    def collate(self, blocks: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """Beside the student's batch `teacher_ids` (B, L_teacher), filled up with 0, and `teacher_before`
        (B, L): the teacher's place that predicts what this place predicts, -1 where there is none."""
        import torch

        batch = super().collate(blocks, rng)
        if self.recut is None:
            return batch
        read = blocks[:, 0] if blocks.ndim == 3 else blocks
        rows = [self.recut(row[row >= 0]) for row in read]
        ids = np.zeros((len(rows), max([1, *(len(theirs) for theirs, _ in rows)])), dtype=np.int64)
        before = np.full(read.shape, -1, dtype=np.int64)
        for number, (theirs, place) in enumerate(rows):
            ids[number, : len(theirs)] = theirs
            before[number, : len(place) - 1] = np.maximum(place[1:] - 1, -1)
        return {**batch, "teacher_ids": torch.from_numpy(ids), "teacher_before": torch.from_numpy(before)}

    def inputs(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The teacher reads its own tokens."""
        found = super().inputs(model, batch)
        theirs = found.pop("teacher_ids", None)
        found.pop("teacher_before", None)
        return {"input_ids": theirs} if theirs is not None and model is self.tutor else found
