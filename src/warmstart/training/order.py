"""In which order blocks are seen: a function of seed and position, so resuming needs no sampler."""

from __future__ import annotations

import numpy as np


class DataOrder:
    """Epoch after epoch, each a permutation of all blocks drawn from `(seed, epoch)` alone.

    Args:
        num_blocks: Blocks per epoch, N.
        seed: Seed of the run.
    """

    def __init__(self, num_blocks: int, seed: int) -> None:
        self.num_blocks, self.seed = num_blocks, seed
        self._epoch, self._permutation = -1, np.empty(0, dtype=np.int64)

    def indices(self, start: int, count: int) -> np.ndarray:
        """Block numbers at positions `start … start + count - 1` of the endless sequence, (count,) int64."""
        parts = []
        while count > 0:
            epoch, offset = divmod(start, self.num_blocks)
            part = self._epoch_order(epoch)[offset : offset + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            self._epoch, self._permutation = epoch, rng.permutation(self.num_blocks)
        return self._permutation
