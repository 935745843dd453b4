"""Bytes that one device sends per step, by kind of parallelism."""

from __future__ import annotations

from dataclasses import dataclass

from warmstart.shape.plan.layout import Layout
from warmstart.shape.plan.workload import Workload


@dataclass(frozen=True)
class Traffic:
    """Bytes sent per device and step.

    Attributes:
        tensor: Sums over the tensor-parallel group, of all micro-batches.
        pipeline: Activations and their gradients between neighbouring stages, of all micro-batches.
        data: Gradients and, where they are divided, weights.
        tensor_calls: Sums, each of which starts anew.
        pipeline_calls: Messages to neighbouring stages.
        data_calls: Exchanges of gradients and weights: one per block where blocks are gathered.
    """

    tensor: float
    pipeline: float
    data: float
    tensor_calls: float
    pipeline_calls: float
    data_calls: float


def ring(devices: int, payload: float) -> float:
    """Bytes that each of `devices` sends in an all-gather or a reduce-scatter of `payload` bytes.

    A ring sends `(n - 1) / n` of it; an all-reduce is both, one after the other.
    """
    return (devices - 1) / devices * payload


def traffic_of(workload: Workload, layout: Layout) -> Traffic:
    """What an inner stage (the only one, without a pipeline) sends.

    - Tensor parallelism: per block as many all-reduces forward and backward as matrices lead back to the
      residual stream (2 + 2 for attention and feed-forward), the forward ones again under full
      recomputation, and one each way at the embedding and at the head (arXiv 1909.08053). With sequence
      parallelism each is a reduce-scatter and an all-gather of the same size together.
    - Pipeline: one tensor of activations forward and one backward per micro-batch.
    - Data parallelism: stages 0 and 1 reduce-scatter gradients and all-gather gradients or weights once per
      step; stage 2 reduce-scatters every micro-batch and gathers weights once; stage 3 gathers weights twice
      and reduce-scatters gradients in every micro-batch (arXiv 1910.02054).
    """
    numerics, part = workload.numerics, workload.slice(layout.tensor)
    width, sequences = workload.anatomy.sizes["H"], layout.micro_batch * layout.micro_batches
    passes = 3 if layout.recompute == "full" else 2
    # of a pipeline the stage with most weights between the ends; all stages hold equally many blocks
    index = min(1, layout.pipeline - 1)
    summed = sent = calls = 0.0
    held = 0
    for block in part.blocks(layout.pipeline, index):
        payload = sequences * workload.length(block.stack) * width * numerics.compute
        sums = passes * block.kept.sums * block.count
        summed, calls, held = summed + sums * payload, calls + sums, held + block.count
    for stack in workload.anatomy.layers:
        payload = sequences * workload.length(stack) * width * numerics.compute
        summed += 2 * payload / layout.pipeline
        sent += 2 * payload if layout.pipeline > 1 else 0.0
    size = sum(block.weights.size * block.count for block in part.blocks(layout.pipeline, index))
    size += sum(weights.size for weights in part.ends()) if layout.pipeline == 1 else 0
    gradients, weights_ = size * min(numerics.gradient, 4), size * numerics.weight
    many = layout.micro_batches
    once = {
        0: 2 * gradients,
        1: gradients + weights_,
        2: many * gradients + weights_,
        3: many * (gradients + 2 * size * numerics.compute),
    }[layout.stage]
    exchanges = {0: 1, 1: 2, 2: many * held + 1, 3: 3 * many * held}[layout.stage]
    return Traffic(
        tensor=2 * ring(layout.tensor, summed),
        pipeline=sent,
        data=ring(layout.data, once),
        tensor_calls=calls * many if layout.tensor > 1 else 0,
        pipeline_calls=2 * many if layout.pipeline > 1 else 0,
        data_calls=exchanges if layout.data > 1 else 0,
    )
