"""Step type `plan`: what a training run would take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from warmstart.foundation.files import atomic_folder
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.shape.plan.settings import PlanSettings


class PlanStep(PlanSettings):
    """Plan a training run: parameters, memory, layout over devices and days; nothing is trained."""

    source: str = ""
    """Checkpoint of the target, where neither `model` nor `config` names it."""


@operations.register(
    "plan",
    settings=PlanStep,
    title="Using DeepSpeed and Megatron to Train Megatron-Turing NLG 530B",
    arxiv="2201.11990",
    tags=("measures",),
)
def plan_step(settings: PlanStep, folder: Path, runner: Runner) -> None:
    """Plan as `warmstart plan` does; the artifact is `plan.json`.

    It holds the numbers of the best layout, bytes and operations of the model, and under `plan` all that the
    planner found.
    """
    from warmstart.shape.plan.planner import plan

    plain = {name: getattr(settings, name) for name in PlanSettings.model_fields}
    if not settings.model and not settings.config:
        plain["model"] = settings.source
    found = plan(PlanSettings.model_validate(plain))
    with atomic_folder(folder / "output", replace=True) as output:
        text = json.dumps(_numbers(found) | {"plan": found}, indent=1) + "\n"
        (output / "plan.json").write_text(text, encoding="utf-8")


def _numbers(found: dict[str, Any]) -> dict[str, float]:
    best, model, count = found["layouts"][0], found["model"], found["operations"]
    return {
        "parameters": model["parameters"]["total"],
        **{
            name: model[name] for name in ("weight_bytes", "gradient_bytes", "optimizer_bytes", "state_bytes")
        },
        "training_per_token": count["training_per_token"],
        "operations": count["run"],
        **{name: best["layout"][name] for name in ("tensor", "pipeline", "data", "micro_batch")},
        "devices_per_replica": best["devices_per_replica"],
        "device_bytes": best["memory"]["total"],
        **{
            name: best[name]
            for name in ("bubble", "utilisation", "tflops_per_device", "tokens_per_second", "step_seconds")
        },
        "days": best["days"],
    }
