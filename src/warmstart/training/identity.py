"""What makes a run this run: a checkpoint is continued only by the run that wrote it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import digest

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from warmstart.objectives import Objective
    from warmstart.training.batches import Blocks
    from warmstart.training.rows import Rows
    from warmstart.training.settings import TrainSettings

FREE = frozenset(
    (
        "logging_steps",
        "report_to",
        "save_steps",
        "save_seconds",
        "save_total_limit",
        "distributed",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
    )
)
"""Settings that may differ when a run continues: they change neither the batches nor the curve."""


def identity_of(
    model: PreTrainedModel,
    packed: Blocks,
    settings: TrainSettings,
    *,
    rows: Rows | None = None,
    objective: Objective | None = None,
) -> dict[str, Any]:
    """What must be equal for a run to be continued, by the name under which a difference is reported."""
    from warmstart.training.rows import rows_identity, vocabulary_size

    return {
        **settings.model_dump(mode="json", exclude=set(FREE)),
        "training data": packed.fingerprint,
        "architecture": digest([(name, list(p.shape)) for name, p in model.named_parameters()]),
        "starting model": weights_sample(model),
        # None where there is none, as in the records of runs that knew neither
        "trained rows": None if rows is None else rows_identity(rows, vocabulary_size(model)),
        "objective's parts": None if objective is None else objective.fingerprint,
    }


def check_same_run(before: Mapping[str, Any], now: Mapping[str, Any], run_dir: Path) -> None:
    """Raise `UserError` with the first difference."""
    from warmstart.training.settings import TrainSettings

    before = {**TrainSettings.added_later(), **before}
    for key, value in now.items():
        if before.get(key) != value:
            raise UserError(
                f"the run folder holds another run: {key} was {before.get(key)!r} and is now {value!r}",
                where=run_dir,
                fix="choose another folder, or remove this one to start over",
            )


def weights_sample(model: PreTrainedModel) -> str:
    """Hash of about 1024 values of each parameter: enough to tell starting models apart."""
    total = hashlib.sha256()
    for parameter in model.parameters():
        flat = parameter.detach().flatten()
        part = flat[:: max(1, flat.numel() // 1024)].float().cpu()
        total.update(part.numpy().tobytes())
    return total.hexdigest()[:16]


def weights_hash(model: PreTrainedModel) -> str:
    """Hash of all weights and the configuration: tells models apart that differ in a single row."""
    total = hashlib.sha256()
    told = {"_name_or_path", "transformers_version", "dtype", "torch_dtype"}
    config = {key: value for key, value in model.config.to_dict().items() if key not in told}
    total.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, parameter in model.named_parameters():
        total.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
        total.update(parameter.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()[:32]
