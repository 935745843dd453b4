"""Every layout that fits, fastest first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd, log

from warmstart.foundation.errors import UserError
from warmstart.shape.plan.hardware import Hardware
from warmstart.shape.plan.layout import Layout
from warmstart.shape.plan.memory import Memory, memory_of, peak_memory
from warmstart.shape.plan.operations import Recompute
from warmstart.shape.plan.ramp import RampSettings
from warmstart.shape.plan.settings import PlanSettings
from warmstart.shape.plan.timing import Timing, predict
from warmstart.shape.plan.weights import tensor_sizes
from warmstart.shape.plan.workload import Workload

MOST_DEVICES = 2**16
TRUSTED = 0.05
"""Difference in time that a prediction can tell."""


@dataclass(frozen=True)
class Candidate:
    """A layout with what it needs.

    Attributes:
        layout: How the job lies on the devices.
        memory: Bytes of the fullest device.
        timing: Predicted times.
    """

    layout: Layout
    memory: Memory
    timing: Timing


def layouts(workload: Workload, hardware: Hardware, settings: PlanSettings) -> Iterator[Layout]:
    """Layouts of exactly `settings.devices` devices and `settings.batch_size` sequences.

    Tensor parallelism stays inside a node and divides heads and feed-forward units; the pipeline divides the
    blocks into equal stages; data parallelism takes the rest and divides the batch, also a growing one at
    every size. ZeRO stages 2 and 3 exclude pipelines, and optimizers that need whole gradients take stage 0.
    What the settings fix is kept.
    """
    tensors = tensor_sizes(workload.anatomy)
    stacks, layers = len(workload.anatomy.layers), workload.layers
    first = settings.tensor or 1, settings.pipeline or 1, settings.zero_stage or 0
    Layout(tensor=first[0], pipeline=first[1], stage=first[2]).check(layers, tensors, stacks=stacks)
    _check_optimizer(workload, settings)
    shared = _smallest_batch(settings)
    fits = [t for t in tensors if settings.tensor or hardware.devices_per_node % t == 0]
    for tensor in [settings.tensor] if settings.tensor else fits:
        rest, left = divmod(settings.devices, tensor)
        stages = [p for p in range(1, (layers if stacks == 1 else 1) + 1) if layers % p == 0 and not rest % p]
        for pipeline in [] if left else stages:
            data = rest // pipeline
            if settings.pipeline not in (None, pipeline) or shared % data:
                continue
            for stage in _stages(workload, settings, pipeline, data):
                for micro in _micro_batches(settings, shared // data):
                    many = settings.batch_size // data // micro
                    for recompute in _recomputes(settings):
                        yield Layout(tensor, pipeline, data, stage, micro, many, recompute)


def _check_optimizer(workload: Workload, settings: PlanSettings) -> None:
    if workload.optimizer.whole and (settings.zero_stage or 0) > 0:
        raise UserError(
            f"{settings.optimizer} needs the gradients of whole matrices, which ZeRO stage "
            f"{settings.zero_stage} divides",
            fix="use zero_stage: 0, or another optimizer",
        )


def _smallest_batch(settings: PlanSettings) -> int:
    """Sequences that divide every batch of the run."""
    ramp = settings.ramp
    if ramp.start is None or not ramp.tokens:
        return settings.batch_size
    return gcd(settings.batch_size, ramp.start, ramp.increment or ramp.start)


def _stages(workload: Workload, settings: PlanSettings, pipeline: int, data: int) -> list[int]:
    if settings.zero_stage is not None:
        return [settings.zero_stage]
    if data == 1 or workload.optimizer.whole:
        return [0]
    return [0, 1] if pipeline > 1 else [0, 1, 2, 3]


def _micro_batches(settings: PlanSettings, per_copy: int) -> list[int]:
    if settings.micro_batch is not None:
        return [settings.micro_batch] if per_copy % settings.micro_batch == 0 else []
    return [2**k for k in range(per_copy.bit_length()) if per_copy % 2**k == 0]


def _recomputes(settings: PlanSettings) -> list[Recompute]:
    if settings.recompute is not None:
        return [settings.recompute]
    return ["none", "selective", "full"] if settings.attention == "eager" else ["none", "full"]


def search(workload: Workload, hardware: Hardware, settings: PlanSettings) -> list[Candidate]:
    """Layouts whose fullest device stays within its memory less the reserve, fastest first.

    A prediction is not better than five percent: within that, the simpler layout comes first (models less
    divided, a lower ZeRO stage, nothing recomputed), then the faster, then that of fewer passes.

    Raises:
        UserError: The devices cannot share model and batch, or no layout fits.
    """
    limit = 1e9 * hardware.memory_gb * (1 - settings.reserve)
    found: list[Candidate] = []
    least: tuple[float, Layout] | None = None
    for layout in layouts(workload, hardware, settings):
        memory = peak_memory(workload, layout)
        if least is None or memory.total < least[0]:
            least = memory.total, layout
        if memory.total <= limit:
            timing = predict(workload, layout, hardware, memory, efficiency=settings.efficiency)
            found.append(Candidate(layout, memory, timing))
    if least is None:
        raise UserError(
            f"{settings.devices} devices cannot share this model and batches of {_smallest_batch(settings)} "
            "sequences evenly",
            fix="choose powers of two, or fix fewer parts of the layout",
        )
    if not found:
        raise _too_large(workload, hardware, settings, least[0], limit)
    fastest = min(candidate.timing.step_seconds for candidate in found)
    return sorted(found, key=lambda candidate: _order(candidate, fastest))


def _order(candidate: Candidate, fastest: float) -> tuple[float, ...]:
    layout, seconds = candidate.layout, candidate.timing.step_seconds
    behind = int(log(seconds / fastest) / log(1 + TRUSTED))
    apart = layout.tensor * layout.pipeline
    same = float(f"{seconds:.3g}")
    return (
        behind,
        apart,
        layout.stage,
        layout.recompute != "none",
        same,
        layout.micro_batches,
        candidate.memory.total,
    )


def _too_large(
    workload: Workload, hardware: Hardware, settings: PlanSettings, least: float, limit: float
) -> UserError:
    """Says how much is missing, and how many devices would do."""
    devices = settings.devices
    while devices < MOST_DEVICES:
        devices *= 2
        more = settings.model_copy(
            update={
                "devices": devices,
                "batch_size": max(settings.batch_size, devices),
                "ramp": RampSettings(),
            }
        )
        if any(peak_memory(workload, each).total <= limit for each in layouts(workload, hardware, more)):
            fix = f"use about {devices} devices"
            break
    else:
        fix = "use devices with more memory"
    return UserError(
        f"no layout fits {settings.devices} x {hardware.title}: the leanest needs {least / 1e9:,.1f} GB per "
        f"device, {limit / 1e9:,.1f} GB are there",
        fix=f"{fix}, shorter sequences, or a leaner optimizer or precision",
    )


def evaluate(
    workload: Workload, hardware: Hardware, layout: Layout, *, efficiency: float
) -> tuple[Candidate, tuple[Memory, ...]]:
    """One layout, whether it fits or not, with the bytes of every stage."""
    stages = memory_of(workload, layout)
    fullest = max(stages, key=lambda memory: memory.total)
    timing = predict(workload, layout, hardware, fullest, efficiency=efficiency)
    return Candidate(layout, fullest, timing), stages
