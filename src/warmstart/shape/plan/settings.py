"""Options of the planner."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.shape.plan.hardware import HardwareSettings
from warmstart.shape.plan.ramp import RampSettings


class PlanSettings(Settings):
    """What is to be trained, on what, and how much of the layout is decided already."""

    model: str = ""
    """Checkpoint (folder, hub id, named source) or file with a config (`.json`, `.yaml`) of the target."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Config keys of the target, with `model_type` where no `model` is given; they win over the model's."""
    tokens: float = Field(default=1e9, gt=0)
    """Training tokens."""
    sequence_length: int | None = Field(default=None, ge=1)
    """Tokens per sequence; at most 2048 and as many as the model can read when not given."""
    target_length: int | None = Field(default=None, ge=1)
    """Tokens per sequence of the decoder of an encoder-decoder model; `sequence_length` when not given."""
    predicted_fraction: float = Field(default=1.0, gt=0, le=1)
    """Share of the tokens for which the head is computed, such as 0.15 where masked models skip the rest."""
    batch_size: int = Field(default=256, ge=1)
    """Sequences per optimizer step over all devices."""
    hardware: HardwareSettings | str = HardwareSettings()
    """Device: `here` (this machine, measured), `cpu`, or a name such as `a100-80gb`."""
    devices: int = Field(default=1, ge=1)
    """Devices over all nodes."""
    efficiency: float = Field(default=0.5, gt=0, le=1)
    """Share of the peak that matrix products of one device reach. At 0.5, MT-NLG 530B comes out within five
    percent of its measured 113 to 126 TFLOP/s per A100."""
    utilisation: float | None = Field(default=None, gt=0, le=1)
    """Model-FLOPs utilisation that was measured on such a run. The duration then follows from it alone; the
    prediction only ranks the layouts."""
    precision: Literal["float32", "mixed", "megatron", "bfloat16"] = "mixed"
    """Number types. `mixed`: float32 weights under autocast to bfloat16 (16 bytes of state per parameter).
    `megatron`: bfloat16 beside float32 weights and gradient sums (20). `bfloat16` alone: 8. `float32`: 16."""
    optimizer: str = "adamw"
    """`adamw`, `adamw-8bit`, `adafactor`, `lion`, `sgd`, `sgd-momentum`, `muon`, `galore`, `fira`, `apollo`
    or `apollo-mini`."""
    rank: int | None = Field(default=None, ge=1)
    """Rank of the optimizers that project gradients; a quarter of the hidden size when not given."""
    attention: Literal["fused", "eager"] = "fused"
    """`eager` attention stores a probability per pair of tokens; fused kernels do not."""
    dropout: bool = False
    """Whether dropout is on; its masks take memory."""
    sequence_parallel: bool = True
    """Whether norms divide the sequence among a tensor-parallel group."""
    tensor: int | None = Field(default=None, ge=1)
    """Tensor-parallel size; searched when not given."""
    pipeline: int | None = Field(default=None, ge=1)
    """Pipeline stages; searched when not given."""
    zero_stage: int | None = Field(default=None, ge=0, le=3)
    """What data-parallel copies divide: 0 nothing, 1 optimizer state, 2 also gradients, 3 also weights;
    searched when not given."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Sequences per device and pass; searched over powers of two when not given."""
    recompute: Literal["none", "selective", "full"] | None = None
    """What the backward pass computes again (activation checkpointing); searched when not given."""
    reserve: float = Field(default=0.1, ge=0, lt=1)
    """Share of a device's memory left for fragmentation, the driver and libraries."""
    top: int = Field(default=5, ge=1)
    """Layouts to show."""
    ramp: RampSettings = RampSettings()
    """Growth of the batch and learning rate over the tokens."""
    sources: list[str] = Field(default_factory=list)
    """Checkpoints or config files from which the target might be made, for the comparison of surgeries."""
    measured: dict[str, float] = Field(default_factory=dict)
    """Surgery to share of the cost of training from scratch that it needed; wins over published numbers."""
