"""Plan a training run: parameters, memory, layout over devices, days, and the cheapest way to that size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from warmstart.cli.options import SettingsCommand, settings_options
from warmstart.cli.output import prints
from warmstart.cli.tables import pairs, size, table, text
from warmstart.shape.plan.settings import PlanSettings

if TYPE_CHECKING:
    from rich.console import Console


def _render(console: Console, found: dict[str, Any]) -> None:
    model, count, device = found["model"], found["operations"], found["hardware"]
    best = found["layouts"][0]
    pairs(
        console,
        {
            "model": f"{model['family']}, {text(model['parameters']['total'])} parameters",
            "state": f"{size(model['state_bytes'])}: weights {size(model['weight_bytes'])}, gradients "
            f"{size(model['gradient_bytes'])}, optimizer {size(model['optimizer_bytes'])}",
            "operations": f"{count['training_per_token']:.4g} per token, {count['run']:.4g} in all",
            "hardware": f"{device['devices']} x {device['title']}",
            "duration": f"{_time(best['days'])} at {best['utilisation']:.0%} model-FLOPs utilisation, "
            f"{text(best['tokens_per_second'])} tokens per second",
        },
    )
    console.print()
    columns = ["tensor", "pipeline", "data", "ZeRO", "batch", "passes", "recompute"]
    columns += ["memory", "bubble", "utilised", "step", "run"]
    rows: list[tuple[Any, ...]] = [
        (
            *(row["layout"][key] for key in ("tensor", "pipeline", "data", "stage")),
            *(row["layout"][key] for key in ("micro_batch", "micro_batches", "recompute")),
            size(row["memory"]["total"]),
            f"{row['bubble']:.1%}",
            f"{row['utilisation']:.1%}",
            f"{row['step_seconds']:.3g} s",
            _time(row["days"]),
        )
        for row in found["layouts"]
    ]
    table(console, columns, rows, title=f"Best of {text(found['fitting'])} layouts that fit")
    _render_launch(console, found["launch"])
    rows = [
        (text(p["tokens"]), p["step"], p["batch_size"], f"{p['learning_rate']:.3g}")
        for p in found["schedule"]
    ]
    console.print()
    table(console, ("tokens", "step", "sequences", "rate"), rows, title="Schedule")
    if found["routes"]:
        rows = [
            (
                route["source"],
                route["surgery"],
                route["does"],
                "" if route["share"] is None else f"{route['share']:.0%}",
                route["basis"],
                route["evidence"],
            )
            for route in found["routes"]
        ]
        columns = ["source", "surgery", "how", "of scratch", "number", "evidence"]
        console.print()
        table(console, columns, rows, title="Ways to this size")


def _render_launch(console: Console, launch: dict[str, Any]) -> None:
    import yaml

    console.print(f"\n{launch['program']}", markup=False, style="bold")
    for name in ("train", "accelerate", "pipeline"):
        if name in launch:
            written = yaml.safe_dump(launch[name], sort_keys=False).rstrip()
            console.print(f"# {name}\n{written}", markup=False)
    if "megatron" in launch:
        console.print("# megatron\n" + " \\\n  ".join(launch["megatron"]), markup=False, soft_wrap=True)


def _time(days: float) -> str:
    for unit, length in (("years", 365.25), ("days", 1), ("hours", 1 / 24), ("minutes", 1 / 1440)):
        if days >= 2 * length or unit == "minutes":
            return f"{days / length:,.1f} {unit}"
    raise AssertionError("unreachable")


def _filed() -> dict[str, float]:
    """Surgery to its measured share of the cost of training from scratch, from the verdicts that are filed.

    A verdict speaks for a surgery if it is of the surgery's system and an arm carries the surgery's name.
    """
    from warmstart.recipes.reproduce import results_folders
    from warmstart.shape.plan import surgeries

    found: dict[str, float] = {}
    for name, surgery in surgeries().items():
        for scale in ("small", "full") if surgery.system else ():
            for folder in results_folders():
                for path in sorted(folder.glob(f"{surgery.system:03}-*.{scale}.json")):
                    for arm in json.loads(path.read_text(encoding="utf-8"))["arms"]:
                        ratios = [s["ratio"] for s in arm["savings"] if s["axis"] == "flops" and s["ratio"]]
                        if arm["name"] == name and ratios:
                            found[name] = ratios[0]["mean"]
    return found


@click.command(cls=SettingsCommand)
@settings_options(PlanSettings, arguments=("model",))
@prints(_render)
def command(settings: PlanSettings) -> dict[str, Any]:
    """Plan the training of MODEL, a checkpoint or a config file, on the devices that you have.

    \b
    Example: warmstart plan config.json --hardware a100-80gb --devices 64 --tokens 1e11 --sources gpt2
    """
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`
    from warmstart.shape.plan import plan

    if settings.sources:
        settings = settings.model_copy(update={"measured": _filed() | settings.measured})
    return plan(settings)
