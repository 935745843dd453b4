"""How well a causal model answers: bits of the answers, and how many it would write itself."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict


class AnswerScores(BaseModel):
    """What a model knows of answers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    bits_per_byte: float
    """`-log2 p(answer | what stands before it)`, its end included, per UTF-8 byte."""
    accuracy: float
    """Share of answers that greedy decoding writes to the last token."""
    answers: int
    """How many there were."""


def answer_scores(
    model: Any, rows: np.ndarray, num_bytes: int, *, batch_size: int = 32, bf16: bool = False
) -> AnswerScores:
    """Read texts with their answers, once.

    Greedy decoding writes an answer exactly where the likeliest token is the right one at each of its places
    with the right ones before it, so nothing has to be generated.

    Args:
        model: A causal model.
        rows: `(N, 2, L)` token ids, and those that are asked for; both filled up with -1.
        num_bytes: UTF-8 bytes of all answers.
        batch_size: Texts per forward pass.
        bf16: Whether matrix products run in bfloat16.
    """
    import torch

    from warmstart.evaluation.head import head_inputs, head_logits
    from warmstart.evaluation.likelihood import measuring

    device = next(model.parameters()).device
    order = np.argsort((rows[:, 0] >= 0).sum(axis=1), kind="stable")
    nats, right = 0.0, 0
    with measuring(model, bf16=bf16):
        for start in range(0, len(rows), batch_size):
            part = rows[order[start : start + batch_size]]
            width = int((part[:, 0] >= 0).sum(axis=1).max())
            ids, goal = (torch.from_numpy(part[:, i, :width].astype(np.int64)).to(device) for i in (0, 1))
            goal = torch.nn.functional.pad(goal[:, 1:], (0, 1), value=-1).reshape(-1)
            where = (goal >= 0).nonzero()[:, 0]
            head, states = head_inputs(model, {"input_ids": ids.clamp(min=0)}, where)
            logits = head_logits(head, states).float()
            nats += float(torch.nn.functional.cross_entropy(logits, goal[where], reduction="sum"))
            wrong = torch.zeros(len(part), dtype=torch.bool, device=device)
            wrong[(where // width)[logits.argmax(-1) != goal[where]]] = True
            right += len(part) - int(wrong.sum())
    return AnswerScores(
        bits_per_byte=nats / math.log(2) / num_bytes, accuracy=right / len(rows), answers=len(rows)
    )
