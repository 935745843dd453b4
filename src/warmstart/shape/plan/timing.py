"""How long a step takes: matrix products, pipeline, sums over devices, the optimizer's update."""

from __future__ import annotations

from dataclasses import dataclass

from warmstart.shape.plan.communication import Traffic, traffic_of
from warmstart.shape.plan.hardware import Hardware
from warmstart.shape.plan.layout import Layout, bubble
from warmstart.shape.plan.memory import Memory
from warmstart.shape.plan.workload import Workload

DAY = 86_400
LATENCY = 25e-6
"""Seconds that a collective operation takes before its first byte arrives."""


@dataclass(frozen=True)
class Timing:
    """Prediction for one layout.

    Attributes:
        step_seconds: One optimizer step.
        compute_seconds: Of which matrix products of one device, recomputation included.
        bubble: Idle time of the pipeline as a share of the computing time.
        traffic: Bytes sent per device and step.
        exposed_seconds: Time in which devices only wait for each other's numbers.
        tokens_per_second: All devices together.
        utilisation: Model operations (without recomputation) as a share of what the devices could do.
        tflops_per_device: Operations that really run (with recomputation) per device and second, in 10^12.
    """

    step_seconds: float
    compute_seconds: float
    bubble: float
    traffic: Traffic
    exposed_seconds: float
    tokens_per_second: float
    utilisation: float
    tflops_per_device: float


def predict(
    workload: Workload, layout: Layout, hardware: Hardware, memory: Memory, *, efficiency: float
) -> Timing:
    """Seconds of a step.

    `(m + p - 1) * (slowest stage's micro-batch + its sums + its messages) + exposed gradients + update`

    Each message costs its bytes over the wire and 25 microseconds, which is what keeps small models from
    being divided. Sums over a tensor-parallel group and messages between stages are not hidden. Gradients
    of data parallelism hide behind the backward pass (two thirds of the time) of the micro-batches that move
    them: the last one for stages 0 and 1, all of them beyond. The update reads and writes its state once.

    Args:
        workload: The job.
        layout: How it lies on the devices.
        hardware: What a device can do.
        memory: Bytes of the fullest device.
        efficiency: Share of the peak that matrix products of one device reach.
    """
    speed = hardware.peak(workload.numerics.type) * efficiency
    operations, stages, many = workload.operations, layout.pipeline, layout.micro_batches
    again = operations.training(layout.recompute) / operations.training()
    ends = 3 * operations.head
    blocks = operations.training(layout.recompute) - ends
    share = layout.micro_batch / layout.tensor
    slowest = (blocks / stages + ends) * share / speed  # the head is on the last stage
    compute = operations.training(layout.recompute) * share * many / stages / speed
    traffic = traffic_of(workload, layout)
    inside = layout.devices <= hardware.devices_per_node
    wire = 1e9 * (hardware.link if inside else hardware.network)
    near = layout.tensor <= hardware.devices_per_node
    sums = traffic.tensor / (1e9 * (hardware.link if near else hardware.network))
    sums += traffic.tensor_calls * LATENCY
    sends = traffic.pipeline / wire + traffic.pipeline_calls * LATENCY
    waiting = (sums + sends) / many
    window = 2 / 3 * compute * (1 if layout.stage >= 2 else 1 / many)
    late = max(0.0, traffic.data / wire + traffic.data_calls * LATENCY - window)
    state = memory.weights + memory.gradients + memory.optimizer
    update = 2 * state / (1e9 * hardware.bandwidth)
    step = (many + stages - 1) * (slowest + waiting) + late + update
    tokens = layout.batch * workload.tokens
    model = operations.training() * layout.batch
    rate = model / (step * layout.devices)
    return Timing(
        step_seconds=step,
        compute_seconds=compute,
        bubble=bubble(stages, many),
        traffic=traffic,
        exposed_seconds=sums + sends + late,
        tokens_per_second=tokens / step,
        utilisation=rate / hardware.peak(workload.numerics.type),
        tflops_per_device=rate * again / 1e12,
    )


def days(operations_per_token: float, tokens: float, devices: int, peak: float, utilisation: float) -> float:
    """Days that `tokens` take at a known model-FLOPs utilisation, `6 N D / (devices * peak * utilisation)`
    with the exact count in place of `6 N`."""
    return operations_per_token * tokens / (devices * peak * utilisation) / DAY
