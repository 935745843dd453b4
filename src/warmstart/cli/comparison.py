"""A finished comparison on a terminal and as JSON, shared by `demo`, `compare`, `run` and `reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.cli.tables import table

if TYPE_CHECKING:
    from rich.console import Console

    from warmstart.evaluation.results import Arm, ComparisonResult


def summary(result: ComparisonResult, folder: Path) -> dict[str, Any]:
    """What other programs want to know of a comparison."""
    return {
        "name": result.name,
        "title": result.title,
        "sentence": result.sentence,
        "verdict": result.verdict,
        "scale": result.scale,
        "baseline": result.baseline,
        "unit": result.unit,
        "arms": [_arm(arm, result) for arm in result.arms],
        "claims": [claim.model_dump(mode="json") for claim in result.claims],
        "folder": str(folder),
        "result": str(folder / "result.json"),
        "report": str(folder / "report.html"),
    }


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of the comparison in a run folder; empty when it holds none."""
    from warmstart.evaluation.results import ComparisonResult

    file = folder / "result.json"
    if not file.is_file():
        return {}
    return summary(ComparisonResult.model_validate_json(file.read_bytes()), folder)


def render(console: Console, found: dict[str, Any]) -> None:
    """The savings table, the claims and where the report is."""
    console.print(f"\n{found['title']}" if found.get("title") else "", markup=False)
    if found.get("sentence"):
        console.print(f"{found['sentence']}\n", markup=False, style="bold")
    rows = [
        (
            arm["name"],
            f"{arm['final_bpb']:.3f}",
            _tokens(arm["tokens_to_target"]),
            "baseline" if arm["name"] == found.get("baseline", "scratch") else _ratio(arm["ratio"]),
            f"{arm['learning_rate']:g}" if arm.get("learning_rate") else "",
        )
        for arm in found["arms"]
    ]
    table(
        console,
        ("arm", found.get("unit", "bits per byte"), "tokens to target", "of baseline", "learning rate"),
        rows,
    )
    for claim in found.get("claims", []):
        sign = {True: "holds", False: "does not hold", None: "undecided"}[claim["holds"]]
        console.print(f"  {sign}: {claim['text']} ({claim['measured']})", markup=False)
    if found.get("verdict") not in (None, "not run"):
        console.print(f"Verdict: {found['verdict']}", markup=False)
    console.print(f"Report: {found['report']}", markup=False, soft_wrap=True)


def _arm(arm: Arm, result: ComparisonResult) -> dict[str, Any]:
    from warmstart.evaluation.saving import savings

    saving = next((s for s in arm.savings if s.axis == "tokens"), None)
    if arm.name == result.baseline:
        own = savings(arm.curves, arm.curves)  # less than its budget where it was better before the end
        tokens: float | None = own.cost.mean if own.cost else None
        ratio: float | None = 1.0
    else:
        tokens = saving.cost.mean if saving and saving.reached and saving.cost else None
        ratio = saving.ratio.mean if saving and saving.reached and saving.ratio else None
    return {
        "name": arm.name,
        "final_bpb": arm.final_bpb.mean,
        "tokens_to_target": tokens,
        "ratio": ratio,
        "learning_rate": arm.learning_rate,
    }


def _tokens(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
