"""Write the report: a comparison as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart import __version__
from warmstart.evaluation.curves import Curve
from warmstart.evaluation.results import Arm, ComparisonResult, Interval
from warmstart.foundation.files import write_atomic
from warmstart.foundation.wording import plain
from warmstart.report import svg as palette
from warmstart.report import words

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

_VERDICTS = {
    "reproduced": ("✓", "good", "reproduced: every claim holds"),
    "partly": ("≈", "mixed", "partly reproduced: some claims hold"),
    "not reproduced": ("✗", "bad", "not reproduced: no claim holds"),
}
_LARGEST_EMBEDDED = 400_000


def write_report(result: ComparisonResult, path: Path) -> Path:
    """Write `result` as a self-contained HTML page that opens without network.

    The page follows the reader's light or dark setting, fits a phone and prints. All text of the result is
    escaped, and a content security policy inside the page forbids scripts and every request.

    Args:
        result: A finished comparison.
        path: File to write, whole or not at all.
    """
    write_atomic(path, render_report(result))
    return path


def write_run_report(
    curve: Curve,
    path: Path,
    *,
    title: str,
    name: str = "run",
    learning_rate: float = 0.0,
    date: str = "",
    sample_prompt: str = "",
    sample_before: str = "",
    sample: str = "",
    lineage: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    data: Mapping[str, str] | None = None,
    machine: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of one plain training run: its curve, samples, lineage, settings; nothing is compared.

    Args:
        curve: What the run measured.
        path: File to write.
        title: Heading of the page.
        name: Name of the run on the curve.
        learning_rate: Peak rate of the run.
        date: ISO date; today by default.
        sample_prompt: Text that the samples continue.
        sample_before: Continuation by the model that training began with.
        sample: Continuation by the finished model.
        lineage: See `checkpoint.Lineage`.
        settings: Settings as resolved.
        data: Corpus name -> fingerprint.
        machine: Processor, cores, versions.
    """
    import datetime

    first, last = curve.points[0], curve.points[-1]
    final = Interval(mean=last.bpb, low=last.bpb, high=last.bpb, per_seed=[last.bpb])
    result = ComparisonResult(
        name=name,
        title=title,
        sentence=f"Training on {words.si(last.tokens)} tokens took held-out text from {first.bpb:.2f} to "
        f"{last.bpb:.2f} bits per byte{', which is worse' if last.bpb > first.bpb else ''}.",
        verdict="not run",
        claims=[],
        scale="own",
        date=date or datetime.datetime.now(datetime.UTC).date().isoformat(),
        baseline=name,
        arms=[
            Arm(
                name=name,
                description="",
                learning_rate=learning_rate,
                learning_rates={},
                curves=[curve],
                final_bpb=final,
                savings=[],
                sample=sample,
            )
        ],
        seeds=[curve.seed],
        sample_prompt=sample_prompt,
        sample_before=sample_before,
        lineage=dict(lineage or {}),
        settings=dict(settings or {}),
        data=dict(data or {}),
        machine=dict(machine or {}),
    )
    return write_report(result, path)


def export_plots(result: ComparisonResult, folder: Path) -> list[Path]:
    """Write each plot of the report as `<folder>/<plot>.png` (150 dots per inch, on white)."""
    from warmstart.report.svg import PAPER, png

    written = []
    for name, figure in _figures(result, PAPER).items():
        write_atomic(folder / f"{name}.png", png(figure))
        written.append(folder / f"{name}.png")
    return written


def render_report(result: ComparisonResult) -> str:
    """The page as text (see `write_report`)."""
    base = words.baseline_arm(result)
    others = [arm for arm in result.arms if arm.name != result.baseline]
    best = words.best_arm(result)
    numbers = json.dumps(result.model_dump(mode="json"), ensure_ascii=False)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            result=result,
            base=base,
            others=others,
            best=best,
            verdict=_VERDICTS.get(result.verdict) if result.claims else None,
            meaning=words.meaning(result),
            headline=_headline(result, best),
            plots=_plots(result),
            colours=_css_colours(result),
            markers=_markers(result),
            settings_yaml=_yaml(result.settings),
            numbers=_data_uri(numbers.encode(), "application/json")
            if len(numbers) < _LARGEST_EMBEDDED
            else "",
            slug=re.sub(r"[^A-Za-z0-9._-]+", "-", result.name).strip("-") or "result",
            version=__version__,
            words=words,
            palette=palette,
        )
    )


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("warmstart.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = plain
    return environment


def _figures(result: ComparisonResult, palette: Any, *, narrow: bool = False) -> dict[str, Figure]:
    from warmstart.report.plots import curves_figure, savings_figure

    figures = {"curves": curves_figure(result, palette, narrow=narrow)}
    if (savings := savings_figure(result, palette, narrow=narrow)) is not None:
        figures["savings"] = savings
    return figures


def _plots(result: ComparisonResult) -> dict[str, dict[str, str]]:
    from warmstart.report.plots import describe_curves, describe_savings
    from warmstart.report.svg import CSS, PAPER, inline_svg, png

    titles = {
        "curves": ("Loss curves", describe_curves(result)),
        "savings": ("Cost until the baseline's final loss", describe_savings(result)),
    }
    found: dict[str, dict[str, str]] = {}
    for name, figure in _figures(result, CSS).items():
        found[name] = {"wide": inline_svg(figure, f"{name}-w", *titles[name])}
    for name, figure in _figures(result, CSS, narrow=True).items():
        found[name]["narrow"] = inline_svg(figure, f"{name}-n", *titles[name])
    for name, figure in _figures(result, PAPER).items():
        found[name]["png"] = _data_uri(png(figure), "image/png")
    return found


def _css_colours(result: ComparisonResult) -> dict[str, str]:
    others = [arm.name for arm in result.arms if arm.name != result.baseline]
    return {result.baseline: "var(--base)"} | {name: f"var(--arm-{i % 8})" for i, name in enumerate(others)}


def _markers(result: ComparisonResult) -> dict[str, str]:
    signs = "●■▲◆▼✚✖★"
    return {arm.name: signs[i % len(signs)] for i, arm in enumerate(result.arms)}


def _headline(result: ComparisonResult, best: Arm | None) -> list[dict[str, str]]:
    """The few numbers that stand large at the top."""
    base = words.baseline_arm(result)
    if best is None or base is None:
        arm = result.arms[0] if result.arms else None
        if arm is None or not arm.curves:
            return []
        last = arm.curves[0].points[-1]
        return [
            {"value": f"{last.bpb:.3f}", "label": result.unit, "note": "held-out text, at the end"},
            {"value": words.si(last.tokens), "label": "training tokens", "note": ""},
            {"value": words.duration(last.seconds), "label": "training time", "note": ""},
        ]
    rows = []
    labels = {"tokens": "of the tokens", "flops": "of the computation", "seconds": "of the time"}
    for axis, label in labels.items():
        found = words.saving(best, axis)
        if found and found.reached and found.ratio and found.cost:
            times = f"{1 / found.ratio.mean:.1f} × less" if 0 < found.ratio.mean < 1 else ""
            rows.append({"value": words.percent(found.ratio.mean), "label": label, "note": times})
    rows.append(
        {
            "value": f"{best.final_bpb.mean:.3f}",
            "label": f"{result.unit} at the end",
            "note": f"{result.baseline}: {base.final_bpb.mean:.3f}",
        }
    )
    return rows


def _yaml(settings: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=100) if settings else ""


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
