"""What a frozen teacher says about a batch: read live, or remembered from an earlier pass or run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from warmstart.evaluation.head import head_inputs, head_logits, unwrap
from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import digest
from warmstart.objectives._divergence import Top, top_of

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from warmstart.evaluation.head import Head
    from warmstart.training.teacher_cache import TeacherCache

_REMEDY = (
    "set alignment: offsets and top_k (causal models), give one of them the other's vocabulary with "
    "`warmstart transplant`, or teach new rows across vocabularies: step train-rows, objective vocabulary-kl"
)


class Voice:
    """A teacher's distributions at the places of a batch.

    Args:
        teacher: Frozen model.
        settings: `DistillationSettings`.

    Attributes:
        learned: Blocks that were put into a cache.
        told: What else decides on what it says, beside its weights and the settings.
    """

    def __init__(self, teacher: PreTrainedModel, settings: Any) -> None:
        self.teacher, self.settings = teacher, settings
        self._caches: dict[str, TeacherCache] = {}
        self.learned = 0
        self.told: list[str] = []

    @property
    def temperature(self) -> float:
        """The teacher's temperature."""
        own = self.settings.teacher_temperature
        return float(self.settings.temperature if own is None else own)

    def prepare(self, tokens: int, device: torch.device) -> None:
        """Freeze the teacher and move it to `device`; it must have rows for `tokens` tokens."""
        if (found := rows_of(self.teacher)) < tokens:
            raise UserError(
                f"the teacher has {found:,} rows and the student's vocabulary {tokens:,} tokens", fix=_REMEDY
            )
        torch.nn.Module.to(self.teacher.eval().requires_grad_(False), device)

    def common(self, student: nn.Module) -> int:
        """Rows of the vocabulary that both have; what one has beyond them is padding."""
        return min(rows_of(student), rows_of(self.teacher))

    def says(
        self, batch: dict[str, Tensor], inputs: dict[str, Tensor], goal: Tensor, rows: int
    ) -> tuple[Head | None, tuple[Tensor, ...]]:
        """What the teacher says where there is a goal, as tensors of N rows, one per place.

        Args:
            batch: The whole batch, which is what a memory is found by.
            inputs: Arguments of the teacher's `forward` for it.
            goal: The token asked for at each position, (B, L); -100 for none.
            rows: Rows of the vocabulary that count.

        Returns:
            Its head and what enters it, (N, H); or, with `top_k`, None and the fields of `_divergence.Top`.
        """
        where = (goal.reshape(-1) != -100).nonzero()[:, 0]
        if self.settings.top_k is None:
            head, states = self._read(inputs, where)
            return head, (states,)
        if self.settings.cache == "none":
            top = self._top(batch, inputs, goal, rows)
            return None, tuple(field for field in top if field is not None)
        from warmstart.training.teacher_cache import Entry, joined, row_keys

        cache, keys = self._cache(where.device.type, rows), row_keys(batch)
        if not all(key in cache for key in keys):  # whole batches: numbers do not depend on what is known
            top = self._top(batch, inputs, goal, rows)
            tail = top.log_p.new_zeros(len(where)) if top.tail is None else top.tail
            counts = (goal != -100).sum(1).tolist()
            pieces = [x.split(counts) for x in (top.ids, top.log_p, tail)]
            before = len(cache)
            for key, *fields in zip(keys, *pieces, strict=True):
                cache.put(key, Entry(*fields))
            self.learned += len(cache) - before
        found = joined([cache[key] for key in keys], where.device)
        return None, (found.ids, found.log_p, *([found.tail] if found.ids.shape[1] < rows else []))

    def flush(self) -> None:
        """Write down what is remembered in memory alone."""
        for cache in self._caches.values():
            cache.flush()

    def _read(self, inputs: dict[str, Tensor], where: Tensor) -> tuple[Head, Tensor]:
        from warmstart.evaluation.likelihood import max_positions

        most, length = max_positions(self.teacher), inputs["input_ids"].shape[1]
        if most is not None and length > most:
            raise UserError(
                f"the teacher reads at most {most} tokens at once, and blocks have {length}",
                fix=f"set block_size: {most}",
            )
        with torch.no_grad():
            return head_inputs(self.teacher, inputs, where)

    def _top(self, batch: dict[str, Tensor], inputs: dict[str, Tensor], goal: Tensor, rows: int) -> Top:
        """The top of the teacher's distributions over the first `rows` tokens, chunk by chunk."""
        from warmstart.evaluation.cross_entropy import chunk_size

        head, states = self._read(inputs, (goal.reshape(-1) != -100).nonzero()[:, 0])
        with torch.no_grad():
            parts = [
                top_of(head_logits(head, part)[:, :rows], self.settings.top_k, self.temperature)
                for part in states.split(chunk_size(len(states), rows))
            ]
        ids, log_p, tails = zip(*parts, strict=True)
        return Top(torch.cat(ids), torch.cat(log_p), None if tails[0] is None else torch.cat(tails))

    def _cache(self, device: str, rows: int) -> TeacherCache:
        from warmstart.foundation.files import cache_home
        from warmstart.training.identity import weights_hash
        from warmstart.training.teacher_cache import TeacherCache

        cast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.teacher.dtype
        known = f"{cast} {rows}"
        if known not in self._caches:
            told = [weights_hash(self.teacher), known, self.settings.top_k, self.temperature, *self.told]
            folder = cache_home() / "teachers" / digest([*told, self.settings.cache])
            self._caches[known] = TeacherCache(folder, precision=self.settings.cache, vocab=rows)
        return self._caches[known]


def same_vocabulary(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
    """Make sure that both give every token the same id; raises `UserError`."""
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours == theirs:
        return
    alike = sum(theirs.get(token) == index for token, index in ours.items())
    raise UserError(
        f"teacher and student read different tokens: the teacher's vocabulary has {len(theirs):,}, the "
        f"student's {len(ours):,}, and {alike:,} of them stand in the same place",
        fix=_REMEDY,
    )


def rows_of(model: nn.Module) -> int:
    """Rows of a model's vocabulary matrix."""
    return int(unwrap(model).get_input_embeddings().weight.shape[0])
