"""How strongly entries are active on text."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from warmstart.anatomy import AxisGroup
from warmstart.foundation.errors import UserError
from warmstart.shape.calibration import Calibration, Hook, wide
from warmstart.shape.consumers import Consumer, consumers_of
from warmstart.shape.importance import ImportanceContext, ImportanceSettings, Scores, importances
from warmstart.shape.importance.magnitude import MagnitudeSettings, magnitude

if TYPE_CHECKING:
    from torch import Tensor


@importances.register(
    "activation",
    settings=ImportanceSettings,
    title="Weight subcloning: direct initialization of transformers using larger pretrained ones",
    arxiv="2312.09299",
    tags=("text",),
)
def activation(settings: ImportanceSettings, context: ImportanceContext) -> Scores:
    """`mean |x_i|` over batch and positions.

    - Units, heads, entries of heads: of what the projection behind them reads, layer by layer; of a head the
      mean over its entries, of a place inside a group of heads the mean over the groups.
    - Hidden axis: one order for the whole model, of the residual stream before the first block and behind
      every block. Each place is divided by its own mean first, since the stream grows from block to block
      and the last blocks alone would decide; outlier entries stay on top. The source averages over the
      layers and says no more.
    - What the language model does not compute (BERT's pooler) goes by the magnitude of its weights.

    All sums are kept, no activation is.

    Raises:
        UserError: No text; experts, whose units are not seen from outside.
    """
    calibration = context.calibrate("the importance 'activation'")
    means, hooks, unseen = _Means(), list[tuple[str, Hook]](), list[AxisGroup]()
    for group in context.groups:
        if group.name == "H":
            hooks += _stream(calibration, means)
            continue
        there = calibration.anatomy.groups.get(group.name)
        found = list(consumers_of(calibration.anatomy, calibration.model, there)) if there else []
        hooks += [(consumer.module, _inputs(means, consumer, group)) for consumer in found]
        if not found:
            unseen.append(group)
    if any(group.scope == "expert" for group in unseen):
        raise UserError(
            "units of experts are not seen by the importance 'activation'",
            where="shrink",
            fix="take magnitude or taylor",
        )
    if hooks:
        calibration.read(hooks)
    return means.scores() | magnitude(MagnitudeSettings(), replace(context, groups=tuple(unseen)))


class _Means:
    """Sums over all tokens, place by place."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, Tensor]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, group: str, place: str, total: Tensor, count: int) -> None:
        known = self._sums.setdefault(group, {})
        known[place] = known[place] + total if place in known else total
        self._counts[group, place] = self._counts.get((group, place), 0) + count

    def scores(self) -> Scores:
        found = {}
        for group, places in self._sums.items():
            means = [
                (total / self._counts[group, place]).double().cpu().numpy() for place, total in places.items()
            ]
            if group == "H":
                means = [mean / (mean.mean() or 1.0) for mean in means]
            found[group] = np.mean(means, axis=0)
        return found


def _stream(calibration: Calibration, means: _Means) -> list[tuple[str, Hook]]:
    """Hooks that see the residual stream before the first block of each stack and behind every block."""

    def hook(given: Tensor, made: Tensor, *, block: str, first: bool) -> None:
        for place, states in ((f"before {block}", given), (block, made))[not first :]:
            flat = wide(states).abs().flatten(0, -2)
            means.add("H", place, flat.sum(0), len(flat))

    anatomy = calibration.anatomy
    blocks = [(stack, layer) for stack, count in anatomy.layers.items() for layer in range(count)]
    names = [(anatomy.site("block", stack=stack, layer=layer), layer == 0) for stack, layer in blocks]
    return [(name, partial(hook, block=name, first=first)) for name, first in names]


def _inputs(means: _Means, consumer: Consumer, group: AxisGroup) -> Hook:
    def hook(given: Tensor, made: Tensor) -> None:
        total = consumer.over(wide(given).abs(), group.name)
        means.add(group.name, consumer.module, total, given.numel() // group.size)

    return hook
