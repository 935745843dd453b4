"""A teacher with another vocabulary: what it says, in the student's tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from warmstart.evaluation.head import head_logits
from warmstart.objectives._divergence import Top, log_softmax, others
from warmstart.objectives._voice import Voice, rows_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn
    from transformers import PreTrainedModel


class RecutVoice(Voice):
    """A teacher's distributions at the places of a batch that it has read in its own tokens.

    At a place whose token has a counterpart in the teacher's cut: the teacher's k likeliest among the tokens
    that both vocabularies have, all others being the tail. Elsewhere: the text's own token, with certainty.

    Args:
        teacher: Frozen model.
        settings: Those of `distillation`, with `top_k`.
        shared: Student and teacher ids of the same token, (S, 2), each at most once.
        fingerprint: Of the way in which text is cut twice.
    """

    def __init__(self, teacher: PreTrainedModel, settings: Any, shared: np.ndarray, fingerprint: str) -> None:
        super().__init__(teacher, settings)
        self._shared = torch.from_numpy(shared)
        self.told = [fingerprint]

    def prepare(self, tokens: int, device: torch.device) -> None:
        """Freeze the teacher and move it to `device`; it may have any number of rows."""
        torch.nn.Module.to(self.teacher.eval().requires_grad_(False), device)
        self._shared = self._shared.to(device)

    def common(self, student: nn.Module) -> int:
        """All of the student's rows: what is said is said of them."""
        return rows_of(student)

    def _top(self, batch: dict[str, Tensor], inputs: dict[str, Tensor], goal: Tensor, rows: int) -> Top:
        from warmstart.evaluation.cross_entropy import chunk_size

        where = (goal.reshape(-1) != -100).nonzero()[:, 0]
        before = batch["teacher_before"].reshape(-1)[where]
        known = before >= 0
        length = inputs["input_ids"].shape[1]
        head, states = self._read(inputs, where[known] // goal.shape[1] * length + before[known])
        ours, theirs = self._shared.to(where.device).unbind(1)
        k = min(int(self.settings.top_k), len(ours))
        # nothing but the text's own token; the other k - 1 are any, of probability 0
        ids = (goal.reshape(-1)[where][:, None] + torch.arange(k, device=where.device)) % rows
        log_p = torch.full(ids.shape, -torch.inf, dtype=_exact(states), device=where.device)
        log_p[:, 0] = 0.0
        tail = torch.full_like(log_p[:, 0], -torch.inf)
        at = known.nonzero()[:, 0]
        size = chunk_size(len(at), rows_of(self.teacher))
        with torch.no_grad():
            for start in range(0, len(at), size):
                part = slice(start, start + size)
                said = log_softmax(head_logits(head, states[part]), self.temperature).to(log_p)
                values, best = said[:, theirs].topk(k, dim=-1)
                ids[at[part]], log_p[at[part]] = ours[best], values
                rest = others(said, theirs[best])
                tail[at[part]] = rest if rest is not None else -torch.inf
        return Top(ids, log_p, tail)


def _exact(states: Tensor) -> torch.dtype:
    return torch.float64 if states.dtype == torch.float64 else torch.float32
