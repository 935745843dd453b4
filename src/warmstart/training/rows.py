"""Only chosen rows of the vocabulary matrices learn; every other row stays what it was, bit for bit.

The gradient of the other rows is set to zero before it is measured, clipped and applied. AdamW then keeps
their moments at zero and adds zero to them, and vocabulary matrices never decay (see
[`parameter_groups`][warmstart.training.parameters.parameter_groups]), so no bit of them changes, also after
a resume and with several processes. Released codes zero the gradients too, and rely on the person to switch
weight decay off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from warmstart.foundation.errors import UserError
from warmstart.training.parameters import vocabulary_parameters

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Rows = np.ndarray | Sequence[int]
"""Row numbers, or one truth value per row."""


def row_mask(rows: Rows, size: int) -> np.ndarray:
    """`rows` as `(size,)` booleans.

    Raises:
        UserError: No row is chosen, one does not exist, or the mask has another length.
    """
    given = np.asarray(rows)
    if given.dtype == bool:
        if given.shape != (size,):
            raise UserError(
                f"the mask of rows to train has shape {given.shape}, the vocabulary has {size:,} rows"
            )
        mask = given.copy()
    else:
        ids = given.astype(np.int64).reshape(-1)
        if len(ids) and not (ids.min() >= 0 and ids.max() < size):
            wrong = ids[(ids < 0) | (ids >= size)][0]
            raise UserError(f"there is no row {wrong} to train, the vocabulary has {size:,} rows")
        mask = np.zeros(size, dtype=bool)
        mask[ids] = True
    if not mask.any():
        raise UserError("no vocabulary row is to be trained", fix="choose at least one row")
    return mask


def rows_identity(rows: Rows | None, size: int) -> str | None:
    """Number and hash of the chosen rows, as part of what makes a run this run."""
    if rows is None:
        return None
    mask = row_mask(rows, size)
    return f"{mask.sum()} of {size}: {hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()[:16]}"


class ChosenRows:
    """The rows of a model's vocabulary parameters that keep their gradient.

    Args:
        model: Where it is trained, already on its device and sharded.
        rows: The chosen ones: they hold for input rows, head rows and head bias alike.

    Raises:
        UserError: None of the vocabulary parameters is trained at all.
    """

    def __init__(self, model: PreTrainedModel, rows: Rows) -> None:
        mask = torch.from_numpy(row_mask(rows, vocabulary_size(model)))
        learning = [p for p in vocabulary_parameters(model) if p.requires_grad]
        if not learning:
            raise UserError(
                "rows to train are chosen, but no vocabulary matrix is trained",
                fix="set trainable: embeddings",
            )
        # primitives of factorised rows belong to all rows, so to none alone
        self._frozen = {
            p: _local(p, ~mask if len(p) == len(mask) else torch.ones(len(p)).bool()) for p in learning
        }

    def keep(self, parameters: Iterable[nn.Parameter]) -> None:
        """Zero the gradients of all other rows of those of `parameters` that hold vocabulary rows."""
        for parameter in parameters:
            frozen = self._frozen.get(parameter)
            if frozen is None or parameter.grad is None:
                continue
            grad: Tensor = parameter.grad
            local = grad.to_local() if hasattr(grad, "to_local") else grad
            local[frozen] = 0.0


def vocabulary_size(model: PreTrainedModel) -> int:
    """Rows of the input matrix."""
    weight: Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    return int(weight.shape[0])


def _local(parameter: nn.Parameter, mask: Tensor) -> Tensor:
    """The part of `mask` that belongs to this process's rows of `parameter`."""
    if hasattr(parameter, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
        whole = mask.to(parameter.device).to(torch.uint8)
        return distribute_tensor(whole, mesh, placements).to_local().bool()
    return mask.to(parameter.device)
