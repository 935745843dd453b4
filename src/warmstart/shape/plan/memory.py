"""Bytes per device: weights, gradients, optimizer, activations and buffers of every pipeline stage."""

from __future__ import annotations

from dataclasses import dataclass

from warmstart.shape.plan.layout import Layout, in_flight
from warmstart.shape.plan.workload import Workload


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        weights: Weights as the forward pass reads them.
        gradients: Gradients with their float32 sums.
        optimizer: Moments and master weights.
        activations: What is kept for the backward pass, at its most.
        buffers: Small copies of autocast, and gathered weights and whole gradients under ZeRO stage 3.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    buffers: float

    @property
    def total(self) -> float:
        """Sum of all."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.buffers


def stage_memory(workload: Workload, layout: Layout, index: int) -> Memory:
    """Bytes on a device of pipeline stage `index` (from 0).

    ZeRO stage 1 divides moments and master weights by the data-parallel size, stage 2 also gradients and
    their float32 sums, stage 3 also weights (Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training
    Trillion Parameter Models", arXiv 1910.02054). Under stage 3, ends of the model and two blocks (the one
    at work and the next) are gathered, and one block's gradients are whole. A last stage that is not the
    first holds a tied table again. Fragmentation and the driver's own memory are not counted.
    """
    part = workload.slice(layout.tensor)
    numerics, copies = workload.numerics, layout.data
    blocks, ends = part.blocks(layout.pipeline, index), part.ends(layout.pipeline, index)
    outside: float = sum(weights.size for weights in ends)
    size = outside + sum(block.weights.size * block.count for block in blocks)
    state = sum(part.state_bytes(weights) for weights in ends)
    state += sum(part.state_bytes(block.weights) * block.count for block in blocks)
    widest = max(block.weights.size for block in blocks)
    if layout.stage == 3:
        buffers = (outside + 3 * widest) * numerics.compute
    else:
        buffers = float(size * numerics.cast)
    return Memory(
        weights=size * numerics.weight / (copies if layout.stage >= 3 else 1),
        gradients=size * numerics.gradient / (copies if layout.stage >= 2 else 1),
        optimizer=state / (copies if layout.stage >= 1 else 1),
        activations=_activations(workload, layout, index),
        buffers=buffers,
    )


def memory_of(workload: Workload, layout: Layout) -> tuple[Memory, ...]:
    """Bytes on a device of each pipeline stage."""
    return tuple(stage_memory(workload, layout, index) for index in range(layout.pipeline))


def peak_memory(workload: Workload, layout: Layout) -> Memory:
    """The stage that needs most: the first, the second (the rest hold fewer activations), or the last."""
    candidates = {0, min(1, layout.pipeline - 1), layout.pipeline - 1}
    found = (stage_memory(workload, layout, index) for index in sorted(candidates))
    return max(found, key=lambda memory: memory.total)


def _activations(workload: Workload, layout: Layout, index: int) -> float:
    part = workload.slice(layout.tensor)
    flying = in_flight(index, layout.pipeline, layout.micro_batches)
    total = working = 0.0
    for block in part.blocks(layout.pipeline, index):
        if layout.recompute == "full":
            total += flying * block.count * part.input_bytes(block.stack)
            working = max(working, part.kept_bytes(block, "none"))
        else:
            total += flying * block.count * part.kept_bytes(block, layout.recompute)
    if index == layout.pipeline - 1:
        total += part.head_bytes
    return layout.micro_batch * (total + working)
