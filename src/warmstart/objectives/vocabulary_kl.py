"""Self-distillation across tokenizations: the old next-token distribution teaches the new vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from warmstart.foundation.settings import Settings, digest
from warmstart.objectives._base import BatchShape, objectives
from warmstart.objectives._parallel import pieces_of, recut
from warmstart.objectives._taught import Taught

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from warmstart.evaluation.head import Head


class VocabularyKLSettings(Settings):
    """Options of self-distillation across tokenizations; a weight of 0 switches a part off."""

    marginal_weight: float = Field(default=1.0, ge=0)
    """Weight of (a), the folded next-token distribution at common places that follow an unchanged token."""
    chain_weight: float = Field(default=1.0, ge=0)
    """Weight of (b), the probability of the new token that stands in the text."""
    after_weight: float = Field(default=1.0, ge=0)
    """Weight of (c), the folded next-token distribution right after a new token."""


@objectives.register(
    "vocabulary-kl",
    settings=VocabularyKLSettings,
    title="KL-based self-distillation for large language models",
    arxiv="2508.15807",
    tags=("causal",),
    skips={
        "loss-is-that-of-transformers": "its loss is a divergence from a teacher, not a likelihood of text",
        "gradient-reaches-every-layer": "a text that teacher and student cut alike has nothing to teach",
    },
)
class VocabularyKL(Taught):
    """Three divergences between a teacher with the old tokens and a student with the new ones.

    The thesis states that a KL objective across two tokenizations beats cross-entropy for new rows, but its
    formula is not public; this construction is ours. At a student place i whose end is also an end of the
    teacher's cut, both have read the same text, and with p the distributions of the next token:

    - (a) the student's probabilities are folded onto old tokens, a new token onto the first of its pieces:
      `q(v) = sum of p_S(s) over s with fold(s) = v`; then `KL(p_T || q)`. A teacher that puts its mass on the
      first piece does not care whether the student says it or the new token, so no choice between the two
      has to be made.
    - (b) for a new token n that the text holds, the teacher's probability is the product over its pieces,
      `log P = sum_j log p_T(piece_j | before)`; then the binary `KL(P || p_S(n))`, which says how the folded
      mass is divided.
    - (c) as (a), at the places right after a stretch that the two cut differently: this is what trains the
      *input* row.

    The loss is the weighted sum over all places, divided by the number of common places. Special tokens are
    left out on both sides and the rest renormalised; so are, in (a) and (c), teacher tokens onto which no
    student token is folded (an extended vocabulary has none). Temperature 1. A published relative is ALM
    (tokenkit), which compares chunk likelihoods at temperature 100.

    Args:
        settings: Options of the objective.
        tokenizer: Tokenizer of the student.
        teacher: Frozen model with the old vocabulary; the trained model itself by default.
        fold: Teacher id onto which each student id is folded, (V_student,); -1 for special tokens and
            padding rows. By default each id onto itself.
    """

    settings: VocabularyKLSettings
    parts = ("teacher", "fold")

    def __init__(
        self,
        settings: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        teacher: PreTrainedModel | None = None,
        fold: np.ndarray | None = None,
    ) -> None:
        super().__init__(settings, tokenizer, teacher=teacher)
        if fold is None:
            fold = np.arange(len(tokenizer))
            fold[list(tokenizer.all_special_ids)] = -1
        self.fold = np.asarray(fold, dtype=np.int64)
        self.fingerprint = digest([self.fingerprint, self.fold.tolist()])

    def shape(self, tokens: int) -> BatchShape:
        """Both models predict at every place."""
        return BatchShape(tokens, teacher=tokens, taught=1.0)

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], companions: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """Weighted sum of the divergences, and the number of common places."""
        import torch

        from warmstart.objectives._hidden import hidden_states, plain_head

        teacher, ends = self.teacher(model), batch["ends"]
        with torch.no_grad():
            (theirs,) = hidden_states(teacher, batch["teacher_ids"])
        (ours,) = hidden_states(model, batch["input_ids"])
        heads = plain_head(model, batch["input_ids"]), plain_head(teacher, batch["teacher_ids"])
        shared, fresh = ends > 0, recut(ends)
        weights = torch.where(fresh, self.settings.after_weight, self.settings.marginal_weight)
        row, place = (shared & (weights > 0)).nonzero(as_tuple=True)
        states = ours[row, place], theirs[row, ends[row, place] - 1]
        total = self._in_chunks(self._folded, heads, *states, weights[row, place])
        if self.settings.chain_weight:
            chained = fresh & torch.nn.functional.pad(shared[:, :-1], (1, 0))
            total = total + self.settings.chain_weight * self._chain(heads, ours, theirs, batch, chained)
        return total, total.new_tensor(float(shared.sum()))

    def _in_chunks(self, function: Any, heads: Any, ours: Tensor, *others: Tensor) -> Tensor:
        """Sum of `function` over chunks of places; logits live for one chunk and are made again backwards."""
        from torch.utils.checkpoint import checkpoint

        from warmstart.evaluation.cross_entropy import chunk_size

        size = chunk_size(len(ours), heads[0].linear.out_features)
        total = ours.sum() * 0.0  # keeps the graph where there is no place at all
        for start in range(0, len(ours), size):
            part = [x[start : start + size] for x in (ours, *others)]
            total = total + checkpoint(function, heads, *part, use_reentrant=False, preserve_rng_state=False)
        return total

    def _folded(self, heads: tuple[Head, Head], ours: Tensor, theirs: Tensor, weights: Tensor) -> Tensor:
        import torch

        from warmstart.objectives._hidden import logits

        with torch.no_grad():
            taught = logits(heads[1], theirs)
        divergence = folded_kl(logits(heads[0], ours), taught, self._table(heads[0]))
        return (weights.to(divergence) * divergence).sum()

    def _table(self, head: Head) -> Tensor:
        """`fold` on the device, one entry per row of the head (padding rows are folded nowhere)."""
        import torch

        assert head.linear is not None
        padded = np.full(head.linear.out_features, -1, dtype=np.int64)
        padded[: len(self.fold)] = self.fold[: len(padded)]
        return torch.from_numpy(padded).to(head.linear.weight.device)

    def _chain(
        self, heads: tuple[Head, Head], ours: Tensor, theirs: Tensor, batch: dict[str, Tensor], at: Tensor
    ) -> Tensor:
        """Summed binary divergences of the new tokens at `at` from the products of their pieces."""
        import torch

        from warmstart.evaluation.cross_entropy import chunk_size
        from warmstart.objectives._hidden import logits

        row, place = at.nonzero(as_tuple=True)
        begin, end = batch["ends"][row, place - 1], batch["ends"][row, place]
        owner, before, piece = pieces_of(batch["teacher_ids"], row, begin, end)
        with torch.no_grad():
            covered = self._table(heads[0]).unique()
            covered = covered[covered >= 0]
            log_p = ours.new_zeros(len(row), dtype=torch.float64)
            size = chunk_size(len(owner), heads[1].linear.out_features)  # type: ignore[union-attr]
            for start in range(0, len(owner), size):
                part = slice(start, start + size)
                raw = logits(heads[1], theirs[row[owner[part]], before[part]])
                own, rest = raw.gather(1, piece[part, None])[:, 0], raw[:, covered].logsumexp(-1)
                whole = torch.where(torch.isin(piece[part], covered), rest, torch.logaddexp(rest, own))
                log_p.index_add_(0, owner[part], (own - whole).double())
        states, token = ours[row, place - 1], batch["input_ids"][row, place]
        return self._in_chunks(self._binary, heads, states, token, log_p)

    def _binary(self, heads: tuple[Head, Head], ours: Tensor, token: Tensor, log_p: Tensor) -> Tensor:
        import torch

        from warmstart.objectives._hidden import logits

        raw = logits(heads[0], ours).masked_fill(self._table(heads[0]) < 0, -torch.inf)
        log_q = raw.log_softmax(-1).gather(1, token[:, None])[:, 0]
        return binary_kl(log_p.to(log_q), log_q).sum()


def folded_kl(student: Tensor, teacher: Tensor, fold: Tensor) -> Tensor:
    """`KL(p_T || q)` in nats, (N,), q being the student's distribution folded onto the teacher's tokens.

    Args:
        student: Logits (N, V_student).
        teacher: Logits (N, V_teacher).
        fold: Teacher id of each student id, (V_student,); -1 leaves it out.
    """
    log_q, columns = folded(student, fold)
    log_p = teacher[:, columns].log_softmax(-1)
    return (log_p.exp() * (log_p - log_q.to(log_p))).sum(-1)


def folded(student: Tensor, fold: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities (N, C) of the teacher tokens onto which something is folded, and their ids (C,)."""
    import torch

    kept = (fold >= 0).nonzero()[:, 0]
    columns, onto = fold[kept].unique(return_inverse=True)
    log_p = student[:, kept].log_softmax(-1)
    index = onto.expand(len(log_p), -1)
    top = torch.full((len(log_p), len(columns)), -torch.inf, dtype=log_p.dtype, device=log_p.device)
    top = top.scatter_reduce(1, index, log_p.detach(), "amax")
    sums = torch.zeros_like(top).scatter_add(1, index, (log_p - top.gather(1, index)).exp())
    return top + sums.log(), columns


def binary_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """`KL` in nats between two coins that fall on heads with probabilities exp(log_p) and exp(log_q)."""
    import torch

    def other(x: Tensor) -> Tensor:  # log(1 - exp(x)), exact for x near 0 and for x far below it
        return torch.where(x > -0.6931, torch.log(-torch.expm1(x)), torch.log1p(-x.exp()))

    tiny = torch.finfo(log_q.dtype).eps
    log_p, log_q = log_p.clamp(max=-tiny), log_q.clamp(max=-tiny)
    p = log_p.exp()
    return p * (log_p - log_q) + (1 - p) * (other(log_p) - other(log_q))
