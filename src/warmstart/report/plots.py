"""The two drawings of a comparison: loss curves, and what each arm cost against the baseline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.evaluation.results import Arm, ComparisonResult
from warmstart.report.svg import MARKERS, STYLE, Palette
from warmstart.report.words import cost, duration, percent, ratio, saving, si

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIS_TITLE = {"tokens": "training tokens", "flops": "training FLOPs", "seconds": "training time"}


def arm_colours(result: ComparisonResult, palette: Palette) -> dict[str, str]:
    """Arm name -> colour; the baseline has its own."""
    others = [arm.name for arm in result.arms if arm.name != result.baseline]
    return {result.baseline: palette.base} | {name: palette.arm(i) for i, name in enumerate(others)}


def curves_figure(
    result: ComparisonResult, palette: Palette, *, axis: str = "tokens", narrow: bool = False
) -> Figure:
    """Mean loss over seeds for each arm, the range of the seeds as a band, and the baseline's final loss.

    Args:
        result: The comparison.
        palette: Colours.
        axis: `tokens`, `flops` or `seconds` along the bottom.
        narrow: Drawing for a phone: a legend instead of names at the ends of the lines.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.1, 4.1) if narrow else (8.2, 4.4))
        axes = figure.subplots()
        colours, ends, drawn = arm_colours(result, palette), [], []
        target = next((a.final_bpb.mean for a in result.arms if a.name == result.baseline), None)
        for index, arm in enumerate(result.arms):
            x, values = aligned(arm, axis)
            if not len(x):
                continue
            mean, base = values.mean(axis=0), arm.name == result.baseline
            colour, marker = colours[arm.name], MARKERS[index % len(MARKERS)]
            axes.fill_between(x, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.16, lw=0)
            axes.plot(
                x,
                mean,
                color=colour,
                lw=2.2 if base else 1.8,
                marker=marker,
                ms=3.6,
                label=f"{arm.name} {mean[-1]:.2f}",
                zorder=3,
            )
            ends.append((mean[-1], f"{arm.name} {mean[-1]:.2f}", colour))
            drawn.append((x, mean))
            found = saving(arm, axis)
            if target is not None and found and found.reached and found.cost:
                axes.plot(
                    [found.cost.mean],
                    [target],
                    marker=marker,
                    ms=10,
                    mfc=palette.page,
                    mec=colour,
                    mew=2,
                    zorder=5,
                )
        if target is not None and len(result.arms) > 1:
            axes.axhline(target, color=palette.ink, lw=1.1, ls=(0, (5, 4)), zorder=2)
        _limits(axes, drawn, target)
        _frame(axes, palette)
        axes.set_xlabel(AXIS_TITLE[axis], color=palette.muted)
        axes.set_title(f"{result.unit}, held-out text", loc="left", fontsize=10, color=palette.muted)
        axes.xaxis.set_major_formatter(lambda v, _: duration(v) if axis == "seconds" else si(v))
        if narrow:
            figure.subplots_adjust(
                left=0.115, right=0.965, top=0.93, bottom=0.2 + 0.05 * math.ceil(len(ends) / 2)
            )
            figure.legend(
                loc="lower left",
                ncols=2,
                frameon=False,
                labelcolor=palette.ink,
                fontsize=9,
                bbox_to_anchor=(0.02, 0),
            )
        else:
            longest = max((len(name) for _, name, _ in ends), default=1)
            figure.subplots_adjust(
                left=0.06, right=1 - min(0.3, 0.024 + 0.0098 * longest), top=0.92, bottom=0.13
            )
            _end_labels(axes, ends)
        return figure


def savings_figure(result: ComparisonResult, palette: Palette, *, narrow: bool = False) -> Figure | None:
    """Share of the baseline's cost that each arm needs for the baseline's final loss, with intervals.

    One row per arm, one column per axis; None when no arm reached that loss.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    others = [arm for arm in result.arms if arm.name != result.baseline]
    axes_names = [a for a in ("tokens", "flops", "seconds") if any(saving(arm, a) for arm in others)]
    finite = [r for arm in others for a in axes_names if math.isfinite(r := ratio(arm, a))]
    if not finite:
        return None
    colours = arm_colours(result, palette)
    rows = sorted(others, key=lambda arm: ratio(arm), reverse=True)
    with mpl.rc_context(STYLE):
        columns = 1 if narrow else len(axes_names)
        count = len(axes_names) if narrow else 1
        height = (0.62 + 0.34 * len(rows)) * count + 0.25
        figure = Figure(figsize=(4.1 if narrow else 8.2, height))
        grid = figure.subplots(count, columns, squeeze=False, sharey=not narrow).ravel()
        top = max(1.0, *finite) * 1.12
        for axes, axis in zip(grid, axes_names):
            _savings_axis(axes, rows, axis, colours, palette, result, min(top, 2.5))
        longest = max(len(arm.name) for arm in rows)
        left = min(0.42, 0.03 + (0.0195 if narrow else 0.0098) * longest)
        figure.subplots_adjust(
            left=left, right=0.97, top=1 - 0.3 / height, bottom=0.33 / height, wspace=0.12, hspace=0.55
        )
        return figure


def _savings_axis(
    axes: Axes,
    rows: Sequence[Arm],
    axis: str,
    colours: dict[str, str],
    palette: Palette,
    result: ComparisonResult,
    top: float,
) -> None:
    axes.axvline(1, color=palette.ink, lw=1.1, ls=(0, (5, 4)), zorder=1)
    for y, arm in enumerate(rows):
        found, colour = saving(arm, axis), colours[arm.name]
        marker = MARKERS[result.arms.index(arm) % len(MARKERS)]
        if not found or not found.reached or not found.ratio:
            axes.text(0.02, y, "not reached in every seed", va="center", fontsize=9, color=palette.muted)
            continue
        mean, low, high = found.ratio.mean, max(0.0, found.ratio.low), found.ratio.high
        axes.plot([0, mean], [y, y], color=colour, lw=7, alpha=0.22, solid_capstyle="butt")
        if len(found.ratio.per_seed) > 1:
            axes.plot([low, min(high, top)], [y, y], color=colour, lw=1.6)
        axes.plot([min(mean, top)], [y], marker=marker, ms=7, color=colour, mew=0)
        end = min(max(high, mean), top)
        inside = end > 0.72 * top
        axes.annotate(
            percent(mean),
            (low if inside else end, y),
            xytext=(-6 if inside else 7, 0),
            textcoords="offset points",
            va="center",
            ha="right" if inside else "left",
            fontsize=9.5,
            fontweight="bold",
            color=colour,
        )
    axes.set_xlim(0, top)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_yticks(range(len(rows)), [arm.name for arm in rows])
    _frame(axes, palette, horizontal=False)
    axes.xaxis.set_major_formatter(lambda v, _: f"{100 * v:.0f} %")
    axes.set_title(AXIS_TITLE[axis], loc="left", fontsize=10, color=palette.muted)
    axes.tick_params(axis="y", labelcolor=palette.ink, labelsize=10)


def aligned(arm: Arm, axis: str) -> tuple[np.ndarray, np.ndarray]:
    """The arm's curves at common places: `(P,)` costs and `(seeds, P)` bits per byte.

    Seeds that were measured at other places are interpolated linearly; points that are not finite are
    left out.
    """
    curves = [
        [(getattr(p, axis), p.bpb) for p in curve.points if math.isfinite(p.bpb)] for curve in arm.curves
    ]
    curves = [points for points in curves if points]
    if not curves:
        return np.empty(0), np.empty((0, 0))
    if axis == "seconds":  # seeds differ in speed: put the n-th measurements of all seeds at their mean time
        length = min(len(points) for points in curves)
        data = np.array([points[:length] for points in curves], dtype=float)
        return data[:, :, 0].mean(axis=0), data[:, :, 1]
    x = np.unique([cost for points in curves for cost, _ in points]).astype(float)
    x = x[x <= min(points[-1][0] for points in curves)]
    return x, np.array([np.interp(x, *np.array(points, dtype=float).T) for points in curves])


def describe_curves(result: ComparisonResult) -> str:
    """The curves in words, for people who cannot see them."""
    parts = []
    for arm in result.arms:
        x, values = aligned(arm, "tokens")
        if len(x):
            mean = values.mean(axis=0)
            parts.append(f"{arm.name}: from {mean[0]:.2f} to {mean[-1]:.2f} after {si(x[-1])} tokens")
    return f"{result.unit} on held-out text against training tokens. " + "; ".join(parts) + "."


def describe_savings(result: ComparisonResult) -> str:
    """The savings in words."""
    parts = []
    for arm in result.arms:
        found = saving(arm, "tokens")
        if found and found.reached and found.ratio and found.cost:
            parts.append(
                f"{arm.name}: {percent(found.ratio.mean)} ({cost(found.cost.mean, 'tokens')} tokens)"
            )
        elif arm.name != result.baseline:
            parts.append(f"{arm.name}: never reached it")
    return f"Share of the cost of {result.baseline} until its final loss. " + "; ".join(parts) + "."


def _limits(axes: Axes, drawn: Sequence[tuple[np.ndarray, np.ndarray]], target: float | None) -> None:
    """Cut off the steep first part of a start from nothing, so that the rest is readable."""
    if not drawn:
        return
    low = min(float(mean.min()) for _, mean in drawn)
    settled = max(float(mean[min(np.searchsorted(x, 0.09 * x[-1]), len(mean) - 1)]) for x, mean in drawn)
    top = max(settled, low + 1.8 * ((target or low) - low), low + 0.05)
    top = min(top + 0.05 * (top - low), max(float(mean.max()) for _, mean in drawn) * 1.02)
    axes.set_ylim(low - 0.06 * (top - low), top)
    end = max(float(x[-1]) for x, _ in drawn)
    axes.set_xlim(-0.012 * end, end * 1.012)


def _frame(axes: Axes, palette: Palette, *, horizontal: bool = True) -> None:
    axes.set_facecolor("none")
    axes.grid(axis="y" if horizontal else "x", color=palette.line, lw=0.8)
    axes.spines["bottom"].set_color(palette.muted if horizontal else palette.line)
    axes.tick_params(colors=palette.muted, length=0, labelsize=9)


def _end_labels(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each arm's name at the end of its line, pushed apart where lines end close together."""
    low, high = axes.get_ylim()
    gap = 0.052 * (high - low)
    places: list[list[Any]] = [[min(y, high), name, colour, y] for y, name, colour in sorted(ends)]
    for _ in range(200):
        moved = False
        for below, above in pairwise(places):
            overlap = gap - (above[0] - below[0])
            if overlap > 1e-9:
                below[0] -= overlap / 2
                above[0] += overlap / 2
                moved = True
        if not moved:
            break
    right = axes.get_xlim()[1]
    for y, name, colour, at in places:
        axes.annotate(
            name,
            (right, min(at, high)),
            xytext=(right + 0.014 * right, y),
            color=colour,
            fontsize=10,
            fontweight="bold",
            va="center",
            annotation_clip=False,
        )
