"""How little each block changes what passes through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from warmstart.shape.calibration import Calibration, Hook, wide

if TYPE_CHECKING:
    from torch import Tensor


def block_similarity(calibration: Calibration) -> dict[str, np.ndarray]:
    """Mean cosine between input and output of every block, per stack `(L,)`.

    `cos(x_l, x_(l+1))` of the residual stream, averaged over all positions of all texts: 1 for a block that
    adds nothing. Yi ranks blocks by it before it repeats some; one minus it is ShortGPT's block influence.
    """
    import torch
    from torch.nn import functional as F

    totals: dict[str, tuple[float, int]] = {}

    def watch(block: str) -> Hook:
        def hook(given: Tensor, made: Tensor) -> None:
            cosines = F.cosine_similarity(wide(given), wide(made), dim=-1)
            total, count = totals.get(block, (0.0, 0))
            totals[block] = total + float(cosines.sum(dtype=torch.float64)), count + cosines.numel()

        return hook

    anatomy = calibration.anatomy
    names = {
        stack: [anatomy.site("block", stack=stack, layer=layer) for layer in range(count)]
        for stack, count in anatomy.layers.items()
    }
    calibration.read([(name, watch(name)) for blocks in names.values() for name in blocks])
    return {
        stack: np.array([totals[name][0] / totals[name][1] for name in blocks])
        for stack, blocks in names.items()
    }
