"""The planner: sizes, operations, layouts, duration, schedule and the ways to get there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from warmstart.anatomy import Anatomy, anatomy_of
from warmstart.foundation.errors import UserError
from warmstart.shape.plan import ramp as ramps
from warmstart.shape.plan.activations import Attending
from warmstart.shape.plan.hardware import HardwareSettings
from warmstart.shape.plan.launch import launch
from warmstart.shape.plan.memory import memory_of
from warmstart.shape.plan.numerics import numerics_of
from warmstart.shape.plan.optimizers import optimizer_of
from warmstart.shape.plan.search import Candidate, search
from warmstart.shape.plan.settings import PlanSettings
from warmstart.shape.plan.surgeries import routes
from warmstart.shape.plan.timing import DAY, days
from warmstart.shape.plan.workload import Workload


def plan(settings: PlanSettings) -> dict[str, Any]:
    """Plan a training run.

    Returns:
        `model` (parameters by part, bytes of state), `operations` (per token and step), `hardware`,
        `layouts` (best first: layout, bytes of the fullest device, times, days), `fitting` (how many there
        are), `stages` (bytes on a device of each pipeline stage of the first), `launch` (its settings),
        `schedule` (batch and rate over the tokens) and `routes` (surgeries from the sources).

    Raises:
        UserError: The model is unknown, its sizes contradict each other, or nothing fits.
    """
    anatomy = open_anatomy(settings.model, settings.config)
    job = workload_of(anatomy, settings)
    given = settings.hardware
    device = (HardwareSettings(name=given) if isinstance(given, str) else given).resolve()
    found = search(job, device, settings)
    length, peak = job.sequence_length, device.peak(job.numerics.type)
    sources = {name: open_anatomy(name, {}) for name in settings.sources}
    result: dict[str, Any] = {
        "model": _model(job),
        "operations": _operations(job, settings),
        "hardware": device.model_dump() | {"devices": settings.devices, "peak": peak},
        "layouts": [_row(candidate, job, settings, peak) for candidate in found[: settings.top]],
        "fitting": len(found),
        "stages": [asdict(memory) | {"total": memory.total} for memory in memory_of(job, found[0].layout)],
        "launch": launch(found[0].layout, device, settings, length=length),
        "schedule": list(
            ramps.rows(
                settings.ramp, batch=settings.batch_size, sequence_length=job.tokens, tokens=settings.tokens
            )
        ),
        "routes": [
            asdict(route)
            for route in routes(
                anatomy,
                sources,
                tokens=settings.tokens,
                operations_per_token=job.operations.training() / job.tokens,
                measured=settings.measured,
            )
        ],
    }
    return result


def open_anatomy(model: str, config: Mapping[str, Any]) -> Anatomy:
    """The anatomy of a checkpoint or of a file with a config, with some keys replaced.

    Of a folder only `config.json` is read, and where there are two stacks the headers, which alone say
    whether the head is tied. Nothing is checked that does not matter for a plan.
    """
    if not model:
        if not config:
            raise UserError(
                "no model was named", fix="give a checkpoint, a config file, or config: {model_type: …}"
            )
        return anatomy_of(dict(config), where="config")
    path = Path(model).expanduser()
    if path.suffix in (".json", ".yaml", ".yml"):
        return anatomy_of({**_read(path), **config}, where=path)
    from warmstart.checkpoint import resolve
    from warmstart.checkpoint.headers import read_headers, weight_files
    from warmstart.checkpoint.verify import read_config

    folder = path if path.is_dir() else resolve(model, scan=False).path
    found, tied = read_config(folder), None
    if found.get("is_encoder_decoder") and weight_files(folder):
        # transformers 5 decides for T5 by the stored weights, whatever config.json says
        tied = not any(name.endswith("lm_head.weight") for name in read_headers(folder))
    return anatomy_of({**found, **config}, tied=tied, where=model)


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the config: {error.strerror}", where=path) from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError("the config is neither JSON nor YAML", where=path) from None
    if not isinstance(data, dict):
        raise UserError("the file does not hold a config", where=path, fix="give a config.json")
    return data


def workload_of(anatomy: Anatomy, settings: PlanSettings) -> Workload:
    """The job that the settings describe."""
    optimizer = optimizer_of(settings.optimizer)
    return Workload(
        anatomy=anatomy,
        sequence_length=settings.sequence_length or min(2048, anatomy.max_length or 2048),
        numerics=numerics_of(settings.precision),
        optimizer=optimizer,
        rank=settings.rank or max(1, anatomy.sizes["H"] // 4),
        attending=Attending(
            fused=settings.attention == "fused",
            dropout=settings.dropout,
            sequence_parallel=settings.sequence_parallel,
        ),
        target_length=settings.target_length,
        predicted_fraction=settings.predicted_fraction,
    )


def _model(job: Workload) -> dict[str, Any]:
    counts, part = job.anatomy.parameters(), job.slice(1)
    state = part.state_bytes(part.parts.whole)
    return {
        "family": job.anatomy.family,
        "layers": dict(job.anatomy.layers),
        "sizes": dict(job.anatomy.sizes),
        "parameters": counts.as_dict(),
        "weight_bytes": counts.total * job.numerics.weight,
        "gradient_bytes": counts.total * job.numerics.gradient,
        "optimizer_bytes": state,
        "state_bytes": counts.total * (job.numerics.weight + job.numerics.gradient) + state,
    }


def _operations(job: Workload, settings: PlanSettings) -> dict[str, float]:
    count, tokens = job.operations, job.tokens
    return {
        "forward_per_token": count.forward / tokens,
        "training_per_token": count.training() / tokens,
        "recomputed_per_token": count.training("full") / tokens,
        "training_per_step": count.training() * settings.batch_size,
        "recomputed_per_step": count.training("full") * settings.batch_size,
        "run": count.training() / tokens * settings.tokens,
        "tokens_per_step": float(tokens * settings.batch_size),
    }


def _row(candidate: Candidate, job: Workload, settings: PlanSettings, peak: float) -> dict[str, Any]:
    timing = candidate.timing
    run = settings.tokens / timing.tokens_per_second / DAY
    if settings.utilisation is not None:
        per_token = job.operations.training() / job.tokens
        run = days(per_token, settings.tokens, settings.devices, peak, settings.utilisation)
    return {
        "layout": candidate.layout.as_dict(),
        "devices_per_replica": candidate.layout.tensor * candidate.layout.pipeline,
        "memory": asdict(candidate.memory) | {"total": candidate.memory.total},
        **asdict(timing),
        "days": run,
    }
