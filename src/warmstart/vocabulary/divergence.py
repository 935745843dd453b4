"""What a model with new tokens says after them, against the model that reads their old pieces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.snippets import window_row

if TYPE_CHECKING:
    from torch import Tensor, nn

    from warmstart.evaluation.head import Head
    from warmstart.vocabulary.aligning import Aligned, Alignment

_AT_ONCE = 256  # texts cut at a time


class Divergence(BaseModel):
    """How far a model with new tokens is from the reference that knows the text by its old tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kl_after_new: float
    """Mean divergence, in nats, of the next-token distributions right after a new token."""
    kl_elsewhere: float
    """The same at all other places at which both have read the same text."""
    new_accuracy: float
    """Share of the text's new tokens that are the model's most probable next token."""
    reference_accuracy: float
    """Share of the same tokens of whose old pieces each is the reference's most probable next token."""
    new_probability: float
    """Mean probability that the model gives to all new tokens together."""
    new_share: float
    """Share of next tokens that are new ones: what `new_probability` should be."""
    after_new: int
    """Places right after a new token."""
    elsewhere: int
    """Other common places."""
    new_tokens: int
    """New tokens that were to be predicted."""


def divergence(
    model: nn.Module,
    reference: nn.Module,
    alignment: Alignment,
    texts: Iterable[str],
    *,
    fold: np.ndarray,
    new: Iterable[int],
    context_length: int = 512,
    start: tuple[int, int] | None = None,
    batch_tokens: int = 4096,
    bf16: bool = False,
) -> Divergence:
    """Read `texts` with both models, each in its own tokens, and compare them where their cuts agree.

    At a common place, `KL(p_reference || q)` in nats, q being the model's distribution folded onto old
    tokens: a new token onto the first of its pieces. This is what the objective
    [`vocabulary-kl`][warmstart.objectives.vocabulary_kl.VocabularyKL] calls (a) and (c), by the same code;
    special tokens are left out on both sides. Places right after a new token tell what its *input* row is
    worth; the others, how much the new tokens disturb what the model says about old text.

    Long texts are read in windows without overlap, which begin and end at common places.

    Args:
        model: Causal model with the new vocabulary.
        reference: Causal model with the old one, on the same device or moved there.
        alignment: Cuts texts twice.
        texts: Texts.
        fold: Old id onto which each row of `model` is folded, (V,), see
            [`fold_ids`][warmstart.vocabulary.aligning.fold_ids]; -1 leaves it out.
        new: New tokens, ids of `model`.
        context_length: Tokens per window in either cut; never more than the models can read.
        start: Old and new id of a beginning-of-text token in front of each window (it counts as one).
        batch_tokens: Tokens per forward pass.
        bf16: Whether matrix products run in bfloat16.

    Raises:
        UserError: The texts hold no new token after a common place.
    """
    import torch

    from warmstart.evaluation.likelihood import max_positions, measuring

    limits = [limit for reader in (model, reference) if (limit := max_positions(reader)) is not None]
    length = min([context_length, *limits])
    device = next(model.parameters()).device
    reference.to(device)
    comparison = _Comparison(model, reference, torch.from_numpy(fold).to(device), new)
    with measuring(model, bf16=bf16), measuring(reference, bf16=bf16):
        stream = iter(texts)
        while part := list(islice(stream, _AT_ONCE)):
            for rows in _batches(windows(alignment.texts(part), length, start), batch_tokens):
                comparison.add(rows)
    return comparison.result()


def windows(text: Aligned, length: int, start: tuple[int, int] | None = None) -> np.ndarray:
    """All of a text as rows `(N, 3, length)` that follow each other, as long as their borders allow.

    Left out is what lies between two common borders and is longer than a row in one of the cuts.

    Args:
        text: Both cuts.
        length: Most tokens of a row in either cut.
        start: Source and target id put in front of each row (it counts as one), or None.
    """
    source_at, target_at = text.borders()
    marks = np.flatnonzero(text.source < 0)
    room = length - (start is not None)
    rows = []
    first = 0
    while first + 1 < len(source_at):
        begin, there = int(source_at[first]), int(target_at[first])
        high = int(marks[np.searchsorted(marks, begin)])
        last = min(
            int(np.searchsorted(source_at, min(high, begin + room), side="right")),
            int(np.searchsorted(target_at, there + room, side="right")),
        )
        if last - 1 <= first:
            first += 1
            continue
        last -= 1
        s, t = slice(begin, int(source_at[last])), slice(there, int(target_at[last]))
        rows.append(window_row(text, s, t, length, start))
        first = last
    return np.stack(rows) if rows else np.empty((0, 3, length), dtype=np.int32)


def _batches(rows: np.ndarray, batch_tokens: int) -> Iterator[np.ndarray]:
    """Rows of similar length, up to `batch_tokens` places together in the longer cut."""
    widths = (rows[:, :2] >= 0).sum(2).max(1, initial=0)
    order = np.argsort(widths, kind="stable")[::-1]
    while len(order):
        size = max(1, batch_tokens // int(widths[order[0]]))
        part, order = order[:size], order[size:]
        yield rows[part]


class _Comparison:
    """Sums over the places of all batches."""

    def __init__(self, model: nn.Module, reference: nn.Module, fold: Tensor, new: Iterable[int]) -> None:
        import torch

        self._model, self._reference, self._fold = model, reference, fold
        self._new = torch.zeros(len(fold), dtype=torch.bool, device=fold.device)
        self._new[list(new)] = True
        self._covered = fold[fold >= 0].unique()
        self._kl = torch.zeros(2, dtype=torch.float64, device=fold.device)  # elsewhere, after a new token
        self._places = torch.zeros(2, dtype=torch.int64, device=fold.device)
        self._probability, self._following, self._fresh = 0.0, 0, 0
        self._right, self._reference_right, self._asked = 0, 0, 0

    def add(self, rows: np.ndarray) -> None:
        import torch

        from warmstart.evaluation.cross_entropy import chunk_size
        from warmstart.objectives._hidden import hidden_states, plain_head
        from warmstart.objectives._parallel import collate_parallel

        device = self._fold.device
        batch = {name: value.to(device) for name, value in collate_parallel(rows).items()}
        ids, ends, labels = batch["input_ids"], batch["ends"], batch["labels"]
        (ours,), (theirs,) = (
            hidden_states(self._model, ids),
            hidden_states(self._reference, batch["teacher_ids"]),
        )
        heads = plain_head(self._model, ids), plain_head(self._reference, batch["teacher_ids"])
        shared = ends > 0
        row, place = shared.nonzero(as_tuple=True)
        follows = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)[row, place]
        known = torch.nn.functional.pad(shared[:, 1:], (0, 1))[row, place]
        size = chunk_size(len(row), len(self._fold))
        for first in range(0, len(row), size):
            part = slice(first, first + size)
            r, p = row[part], place[part]
            states = ours[r, p], theirs[r, ends[r, p] - 1]
            self._compare(heads, *states, self._new[ids[r, p]], follows[part], known[part])
        asked = known & self._is_new(follows)
        begin, end = ends[row[asked], place[asked]], ends[row[asked], place[asked] + 1]
        self._read(heads[1], theirs, batch["teacher_ids"], row[asked], begin, end)

    def _is_new(self, labels: Tensor) -> Tensor:
        return (labels >= 0) & self._new[labels.clamp(min=0)]

    def _compare(
        self,
        heads: tuple[Head, Head],
        ours: Tensor,
        theirs: Tensor,
        after: Tensor,
        follows: Tensor,
        known: Tensor,
    ) -> None:
        """Take in N places.

        Args:
            heads: Of the model and the reference.
            ours: States of the model, (N, H).
            theirs: States of the reference.
            after: Whether the place is right after a new token, (N,).
            follows: Label that comes next; -100 at the end.
            known: Whether that one ends at a common place.
        """
        from warmstart.objectives._hidden import logits
        from warmstart.objectives.vocabulary_kl import folded_kl

        raw = logits(heads[0], ours)
        found = folded_kl(raw, logits(heads[1], theirs), self._fold).double()
        self._kl.index_add_(0, after.long(), found)
        self._places += after.long().bincount(minlength=2)
        allowed = raw.masked_fill(self._fold < 0, -math.inf)
        continued = follows >= 0
        self._probability += float(allowed[continued].softmax(-1)[:, self._new].double().sum())
        self._following += int(continued.sum())
        fresh = self._is_new(follows)
        self._fresh += int(fresh.sum())
        asked = fresh & known
        self._right += int((allowed[asked].argmax(-1) == follows[asked]).sum())
        self._asked += int(asked.sum())

    def _read(self, head: Head, states: Tensor, ids: Tensor, row: Tensor, begin: Tensor, end: Tensor) -> None:
        """Count the stretches of which the reference predicts every piece."""
        import torch

        from warmstart.evaluation.cross_entropy import chunk_size
        from warmstart.objectives._hidden import logits
        from warmstart.objectives._parallel import pieces_of

        owner, before, piece = pieces_of(ids, row, begin, end)
        wrong = torch.zeros(len(row), dtype=torch.int64, device=row.device)
        size = chunk_size(len(owner), len(self._covered))
        for first in range(0, len(owner), size):
            part = slice(first, first + size)
            said = logits(head, states[row[owner[part]], before[part]])[:, self._covered].argmax(-1)
            wrong.index_add_(0, owner[part], (self._covered[said] != piece[part]).long())
        self._reference_right += int((wrong == 0).sum())

    def result(self) -> Divergence:
        if not self._asked or not self._places[1]:
            raise UserError(
                "the text holds no new token, so there is nothing to compare",
                fix="give text in which the new tokens occur, or more of it",
            )
        elsewhere, after = (int(n) for n in self._places)
        return Divergence(
            kl_after_new=float(self._kl[1]) / after,
            kl_elsewhere=float(self._kl[0]) / elsewhere if elsewhere else math.nan,
            new_accuracy=self._right / self._asked,
            reference_accuracy=self._reference_right / self._asked,
            new_probability=self._probability / self._following,
            new_share=self._fresh / self._following,
            after_new=after,
            elsewhere=elsewhere,
            new_tokens=self._asked,
        )
