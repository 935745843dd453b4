"""Two cuts of the same text into tokens as one batch, and which of their places belong together.

A block holds three lines `(3, L)`: the teacher's ids, the student's ids, and for each student token the
number of teacher tokens read when it has been read, 0 where the teacher's cut has no border there. Lines are
filled up with -1, so that padding is known by its place and not by an id that may also be a real token (the
released code of token distillation compares ids, which goes wrong where padding and end of text are one
token). A plain block `(L,)` is a text that both cut alike.

Attention is causal and padding stands at the end, so nothing real ever sees it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def collate_parallel(blocks: np.ndarray) -> dict[str, Tensor]:
    """`input_ids`, `labels`, `ends` (B, L_student) and `teacher_ids` (B, L_teacher), int64.

    Padding is id 0, label -100 and end 0. Columns in which no text has a token are left out.

    Args:
        blocks: `(B, 3, L)`, or `(B, L)` for texts that both cut alike.
    """
    import torch

    if blocks.ndim == 2:
        place = np.where(blocks >= 0, np.arange(1, blocks.shape[1] + 1), -1)
        blocks = np.stack([blocks, blocks, place], axis=1)
    blocks = blocks.astype(np.int64)
    teacher, student, ends = (_trimmed(blocks[:, i]) for i in range(3))
    ends = blocks[:, 2, : student.shape[1]]
    found = {
        "input_ids": np.maximum(student, 0),
        "labels": np.where(student < 0, -100, student),
        "teacher_ids": np.maximum(teacher, 0),
        "ends": np.where(student < 0, 0, np.maximum(ends, 0)),
    }
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}


def _trimmed(line: np.ndarray) -> np.ndarray:
    used = np.flatnonzero((line >= 0).any(0))
    return line[:, : used[-1] + 1] if len(used) else line[:, :1]


def recut(ends: Tensor) -> Tensor:
    """Student places at which a stretch ends that the two cut differently, (B, L) bool.

    Args:
        ends: As in the batch; a stretch lies between two borders that both have.
    """
    import torch

    shared = ends > 0
    place = torch.arange(1, ends.shape[1] + 1, device=ends.device).expand_as(ends)
    last = torch.where(shared, place, 0).cummax(1).values
    read = torch.where(shared, ends, 0).cummax(1).values
    before_place = torch.nn.functional.pad(last[:, :-1], (1, 0))
    before_read = torch.nn.functional.pad(read[:, :-1], (1, 0))
    return shared & ((ends - before_read != 1) | (place - before_place != 1))


def pieces_of(teacher_ids: Tensor, row: Tensor, begin: Tensor, end: Tensor) -> tuple[Tensor, ...]:
    """The teacher's tokens of N stretches, one after the other.

    Args:
        teacher_ids: (B, L_teacher).
        row: Text of each stretch, (N,).
        begin: Teacher tokens read before it, at least one.
        end: Teacher tokens read after it.

    Returns:
        For each token the number of its stretch, the place that predicts it, and its id.
    """
    import torch

    length = end - begin
    owner = torch.arange(len(row), device=row.device).repeat_interleave(length)
    step = torch.arange(len(owner), device=row.device) - (length.cumsum(0) - length)[owner]
    before = begin[owner] + step - 1
    return owner, before, teacher_ids[row[owner], before + 1]
