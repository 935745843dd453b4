"""How a model and its batch lie on devices, and what a pipeline makes of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from warmstart.foundation.errors import UserError
from warmstart.shape.plan.operations import Recompute


@dataclass(frozen=True)
class Layout:
    """One way to use the devices.

    Attributes:
        tensor: Devices that share each matrix.
        pipeline: Stages that share the blocks.
        data: Copies of the model that share the batch.
        stage: What the copies divide among them (ZeRO, arXiv 1910.02054): 0 nothing, 1 the optimizer's
            state, 2 also gradients, 3 also weights.
        micro_batch: Sequences per device and pass.
        micro_batches: Passes per step.
        recompute: What the backward pass computes again.
    """

    tensor: int = 1
    pipeline: int = 1
    data: int = 1
    stage: int = 0
    micro_batch: int = 1
    micro_batches: int = 1
    recompute: Recompute = "none"

    @property
    def devices(self) -> int:
        """All devices."""
        return self.tensor * self.pipeline * self.data

    @property
    def batch(self) -> int:
        """Sequences per step."""
        return self.data * self.micro_batch * self.micro_batches

    def as_dict(self) -> dict[str, Any]:
        """All numbers by name."""
        return asdict(self)

    def check(self, layers: int, tensor_sizes: list[int], *, stacks: int = 1) -> Layout:
        """Return self; raise `UserError` where the model cannot lie like this."""
        if self.tensor not in tensor_sizes:
            raise UserError(
                f"tensor parallelism over {self.tensor} devices does not divide heads and feed-forward units",
                fix=f"use one of {', '.join(map(str, tensor_sizes))}",
            )
        if self.pipeline > 1 and stacks > 1:
            raise UserError("pipelines of encoder-decoder models are not planned", fix="use pipeline: 1")
        if layers % self.pipeline:
            raise UserError(
                f"{layers} layers cannot be divided into {self.pipeline} equal stages",
                fix=f"use one of {', '.join(str(n) for n in range(1, layers + 1) if layers % n == 0)}",
            )
        if self.pipeline > 1 and self.stage > 1:
            raise UserError(
                f"a pipeline with ZeRO stage {self.stage} gathers or reduces everything once per micro-batch",
                fix="use stage 0 or 1 with a pipeline",
            )
        return self


def bubble(stages: int, micro_batches: int) -> float:
    """Idle time of a pipeline as a share of the time spent computing, `(p - 1) / m`.

    Holds for GPipe and for 1F1B schedules (Narayanan et al., arXiv 2104.04473).
    """
    return (stages - 1) / micro_batches


def in_flight(index: int, stages: int, micro_batches: int) -> int:
    """Micro-batches whose activations stage `index` (from 0) holds at once under 1F1B."""
    return min(stages - index, micro_batches)
