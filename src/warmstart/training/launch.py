"""How a run is spread over processes and reported, as the launcher and the settings say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from warmstart.foundation.errors import MissingExtra, UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from warmstart.training.settings import TrainSettings


def wants_shards(settings: TrainSettings) -> bool:
    """Whether several processes share parameters by FSDP2: by setting, or because they were launched so."""
    launched = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return settings.distributed == "fsdp2" or (settings.distributed == "auto" and launched)


def make_accelerator(settings: TrainSettings, run_dir: Path) -> Accelerator:
    """Processes, devices and trackers. Precision is set where the loss is computed, not here."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import (
        DistributedDataParallelKwargs,
        DistributedType,
        ProjectConfiguration,
        patch_environment,
    )

    _check_launch(settings)
    AcceleratorState._reset_state(reset_partial_state=True)  # an earlier run may have been set up otherwise
    with patch_environment(ACCELERATE_USE_FSDP="false"):  # FSDP2 is set up in `shard`, also on CPUs
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # else accelerate overlooks several processes on CPUs
            mixed_precision="no",
            log_with=trackers(settings.report_to) or None,
            project_config=ProjectConfiguration(str(run_dir), logging_dir=str(run_dir / "trackers")),
            step_scheduler_with_optimizer=False,
            kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        )
    kind = accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise UserError(f"{kind.value} is not supported", fix="launch with DDP or FSDP2")
    return accelerator


def _check_launch(settings: TrainSettings) -> None:
    launched = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if launched and settings.distributed == "auto" and os.environ.get("FSDP_VERSION", "1") == "1":
        raise UserError("FSDP version 1 is not supported", fix="set fsdp_version: 2 in the accelerate config")


def shard(module: nn.Module, model: nn.Module, accelerator: Accelerator) -> None:
    """Shard parameters in place over all processes: each transformer layer is a unit, the rest is another.

    Torch's `fully_shard` (FSDP2) is called directly: accelerate sets it up on GPUs only and, for tied models,
    makes units that a chunked loss, which uses the head's rows without calling the head, would leave half
    gathered. Two options of an accelerate config are honoured: `fsdp_reshard_after_forward` and
    `fsdp_offload_params`.
    """
    from torch.distributed import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

    def asked(name: str, default: str) -> bool:
        return os.environ.get(name, default).lower() == "true"

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    policy = CPUOffloadPolicy() if asked("FSDP_OFFLOAD_PARAMS", "false") else OffloadPolicy()
    layers = set(getattr(model, "_no_split_modules", None) or ())
    module.to(accelerator.device)
    for part in model.modules():
        if type(part).__name__ in layers:
            reshard = asked("FSDP_RESHARD_AFTER_FORWARD", "true")
            fully_shard(part, mesh=mesh, reshard_after_forward=reshard, offload_policy=policy)
    fully_shard(module, mesh=mesh, reshard_after_forward=False, offload_policy=policy)


_PACKAGES = {"comet_ml": "comet_ml", "dvclive": "dvclive", "clearml": "clearml", "aim": "aim"}


def trackers(report_to: str | list[str]) -> list[str]:
    """Names of the trackers to use; a tracker whose package is missing raises `MissingExtra`."""
    import importlib.util

    from accelerate.utils import LoggerType

    names = [report_to] if isinstance(report_to, str) else report_to
    names = [name for name in names if name != "none"]
    known = sorted(str(kind.value) for kind in LoggerType if kind.value != "all")
    for name in names:
        if name not in known:
            raise UserError(
                f"unknown tracker {name!r} in report_to", fix="choose none or " + ", ".join(known)
            )
        package = _PACKAGES.get(name, name)
        if importlib.util.find_spec(package) is None:
            if name == "tensorboard":
                raise MissingExtra("tensorboard", "trackers", "report_to: tensorboard")
            raise UserError(f"report_to: {name} needs the package {package}", fix=f"pip install {package}")
    return names
