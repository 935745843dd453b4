"""Settings for the programs that run a layout: warmstart and accelerate, or Megatron-LM for pipelines."""

from __future__ import annotations

from typing import Any

from warmstart.shape.plan.hardware import Hardware
from warmstart.shape.plan.layout import Layout
from warmstart.shape.plan.settings import PlanSettings


def launch(layout: Layout, hardware: Hardware, settings: PlanSettings, *, length: int) -> dict[str, Any]:
    """What to write into which configuration.

    Returns:
        `program`, and of `train` (settings of `warmstart train`), `accelerate` (its configuration file),
        `megatron` (flags) and `pipeline` (arguments of `torch.distributed.pipelining`) those that the layout
        needs.
    """
    machines = -(-layout.devices // hardware.devices_per_node)
    found: dict[str, Any] = {"program": _program(layout)}
    if layout.pipeline > 1:
        found["pipeline"] = {
            "schedule": "1F1B",
            "stages": layout.pipeline,
            "n_microbatches": layout.micro_batches,
        }
        found["megatron"] = _megatron(layout, settings, length)
        return found
    found["train"] = {
        "block_size": length,
        "per_device_train_batch_size": layout.micro_batch,
        "gradient_accumulation_steps": layout.micro_batches,
        "gradient_checkpointing": layout.recompute == "full",
        "learning_rate": settings.ramp.learning_rate,
        "distributed": "fsdp2" if layout.stage >= 2 or layout.tensor > 1 else "auto",
    }
    if layout.devices > 1:
        found["accelerate"] = {
            "compute_environment": "LOCAL_MACHINE",
            "num_machines": machines,
            "num_processes": layout.devices,
            "mixed_precision": "bf16" if settings.precision in ("mixed", "megatron") else "no",
            **_sharding(layout),
        }
    return found


def _program(layout: Layout) -> str:
    if layout.pipeline > 1:
        return "Megatron-LM, or torch.distributed.pipelining"
    if layout.tensor > 1:
        return "accelerate launch, with a model loaded under its tensor-parallel plan"
    return "accelerate launch" if layout.devices > 1 else "warmstart train"


def _sharding(layout: Layout) -> dict[str, Any]:
    if layout.stage == 1 and layout.tensor == 1:
        return {
            "distributed_type": "DEEPSPEED",
            "deepspeed_config": {
                "zero_stage": 1,
                "gradient_accumulation_steps": layout.micro_batches,
                "offload_optimizer_device": "none",
            },
        }
    if layout.stage == 0 and layout.tensor == 1:
        return {"distributed_type": "MULTI_GPU"}
    found: dict[str, Any] = {
        "distributed_type": "FSDP",
        "fsdp_config": {
            "fsdp_version": 2,
            "fsdp_reshard_after_forward": layout.stage == 3,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_activation_checkpointing": layout.recompute == "full",
            "fsdp_cpu_ram_efficient_loading": True,
            "fsdp_offload_params": False,
            "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        },
    }
    if layout.tensor > 1:
        found["parallelism_config"] = {
            "parallelism_config_dp_replicate_size": 1,
            "parallelism_config_dp_shard_size": layout.data,
            "parallelism_config_tp_size": layout.tensor,
        }
    return found


def _megatron(layout: Layout, settings: PlanSettings, length: int) -> list[str]:
    ramp = settings.ramp
    flags = [
        f"--tensor-model-parallel-size {layout.tensor}",
        f"--pipeline-model-parallel-size {layout.pipeline}",
        f"--micro-batch-size {layout.micro_batch}",
        f"--global-batch-size {layout.batch}",
        f"--seq-length {length}",
    ]
    if settings.precision != "float32":
        flags.append("--bf16")
    if layout.tensor > 1 and settings.sequence_parallel:
        flags.append("--sequence-parallel")
    if layout.stage == 1:
        flags.append("--use-distributed-optimizer")
    if layout.recompute == "full":
        flags.append("--recompute-granularity full --recompute-method uniform --recompute-num-layers 1")
    elif layout.recompute == "selective":
        flags.append("--recompute-granularity selective")
    if ramp.start is not None and ramp.tokens:
        flags.append(
            f"--rampup-batch-size {ramp.start} {ramp.increment or ramp.start} {int(ramp.tokens // length)}"
        )
    return flags
