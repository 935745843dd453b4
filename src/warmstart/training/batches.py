"""The batch of one optimizer step, made whole and then cut: equal however passes and processes share it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.training.order import DataOrder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from warmstart.objectives import Objective


class Blocks(Protocol):
    """Packed text: fixed-length blocks of token ids (`corpus.Packed`)."""

    @property
    def fingerprint(self) -> str:
        """Hash of the ids."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


class StepBatches:
    """Batches by step number; the next one is prepared while the current one is computed.

    Masks are drawn for the whole batch of a step from `(seed, step)`, so that neither the number of
    accumulated passes nor the number of processes nor an interruption changes them.

    Args:
        blocks: Packed text.
        objective: Turns blocks (B, L) into model inputs and labels.
        seed: Seed of order and masks.
        rows: Blocks of one forward pass, B.
        passes: Accumulated forward passes per step.
        rank: This process.
        world: Number of processes.
        device: Where the tensors go.
    """

    def __init__(
        self,
        blocks: Blocks,
        objective: Objective,
        *,
        seed: int,
        rows: int,
        passes: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        if not len(blocks):
            raise UserError(
                "there is not a single training block", fix="give more text or a smaller block_size"
            )
        self.blocks, self.objective, self.seed, self.device = blocks, objective, seed, device
        self.rows, self.passes, self.rank, self.world = rows, passes, rank, world
        self.global_rows = rows * passes * world
        self._order = DataOrder(len(blocks), seed)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Future[list[dict[str, Tensor]]]] | None = None

    def __enter__(self) -> StepBatches:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def get(self, step: int) -> Iterator[dict[str, Tensor]]:
        """This process's forward passes of optimizer step `step` (from 0), on the device."""
        if self._next is not None and self._next[0] == step:
            passes = self._next[1].result()
        else:
            passes = self.make(step)
        self._next = (step + 1, self._pool.submit(self.make, step + 1))
        for batch in passes:
            yield {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def make(self, step: int) -> list[dict[str, Tensor]]:
        """The batches of `get`, on the CPU."""
        numbers = self._order.indices(step * self.global_rows, self.global_rows)
        ids = np.stack([np.asarray(self.blocks[int(i)]) for i in numbers]).astype(np.int64)
        whole = self.objective.collate(ids, np.random.default_rng([self.seed, 1, step]))
        cuts = ((p * self.world + self.rank) * self.rows for p in range(self.passes))
        return [
            {name: value[start : start + self.rows].contiguous() for name, value in whole.items()}
            for start in cuts
        ]
