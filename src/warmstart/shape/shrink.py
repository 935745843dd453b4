"""Shrinking a model: fewer layers, and narrower ones, made of the most important parts."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import Field

from warmstart.anatomy import Anatomy, AxisGroup
from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.calibration import Calibrate
from warmstart.shape.depth import depths
from warmstart.shape.groups import Resized, check_blocks, resized_groups
from warmstart.shape.grow import per_layer
from warmstart.shape.importance import ImportanceContext, Scores, importances
from warmstart.shape.maps import AxisMap, LayerMap, select
from warmstart.shape.refit import refit_outputs
from warmstart.shape.rescale import calibrated_factors
from warmstart.shape.reshape import Read, Reshape
from warmstart.shape.scores import keep_scores
from warmstart.shape.selection import best, by_prefix, check_shrinkable, rotary_places, rotating
from warmstart.shape.target import target_anatomy, with_config
from warmstart.shape.width import Widening, WidthContext
from warmstart.shape.width._norms import split_last_norm, stretch_norms


class ShrinkSettings(Settings):
    """Which size, and what stays."""

    to: dict[str, int] = Field(min_length=1)
    """Sizes of the new model by their configuration keys, such as `{hidden_size: 128, num_hidden_layers:
    4}`; what is not named stays."""
    importance: str | dict[str, Any] = "activation"
    """Which entries of the axes stay: `activation`, `taylor`, `magnitude`, `first` or `random`; or a table
    `{name: activation, …}` with the way's own settings."""
    depth: str | dict[str, Any] = "middle"
    """Which layers stay: `middle` takes them out of the middle, `cosine` those that change least,
    `interleave` every k-th, `first`, `last`, `{name: chosen, layers: […]}`."""
    rescale: Literal["sqrt", "calibrated", "none"] = "sqrt"
    """Factors on the weights that read a cut axis: the root of old by new size, measured on text, or none."""
    norms: Literal["slice", "compensate"] = "slice"
    """`slice` cuts gains and biases of norms. `compensate` also lets a norm divide as if what was cut from
    the hidden axis had been zero (RMSNorm) or the mean (LayerNorm), which is right where it was."""
    refit: Literal["none", "cut", "zero"] = "none"
    """Fit output projections of MLPs and attentions on text to what the uncut ones wrote, by ridge regression
    drawn to the cut weights (`cut`) or to zero (`zero`)."""
    ridge: float = Field(default=1e-3, gt=0)
    """Strength of that regression, as a share of the mean square of its inputs."""
    seed: int = Field(default=0, ge=0)
    """Seed of all random choices."""


class Judge(Protocol):
    """Importance of entries and similarity of layers, known once for many surgeries on one model."""

    @property
    def similarity(self) -> Mapping[str, np.ndarray]:
        """Stack to what [`block_similarity`][warmstart.shape.similarity.block_similarity] measures."""

    def scores(self, groups: tuple[AxisGroup, ...]) -> Scores:
        """Importance of the entries of these groups, as the way says that the settings name."""


def shrink(
    old: Anatomy,
    settings: ShrinkSettings,
    *,
    read: Read,
    names: Collection[str],
    calibrate: Calibrate,
    judge: Judge | None = None,
) -> Reshape:
    """The surgery that makes a smaller model out of parts of a larger one.

    Entries are cut, not merged: one set of hidden entries for the whole model (the residual stream is one);
    units layer by layer; whole heads, and with grouped queries whole groups, or the same places inside every
    group; of rotary heads the pairs whose frequencies the smaller head has. The output of a linear map over
    n of N inputs has `sqrt(n / N)` of its spread, so weights that read a cut axis are multiplied by
    `sqrt(N / n)`; in the place of a tied head, which is a table of input rows as well, the gain of the last
    norm is. Norms divide by the mean square of what stays: where the important entries are large, everything
    behind them gets smaller, which `rescale: calibrated` measures and mends.

    Args:
        old: The model that exists.
        settings: Which size, and how.
        read: Gives stored tensors by canonical name.
        names: Canonical names of what is stored.
        calibrate: Gives model and text to what needs them.
        judge: Knows importance and similarity already, where many sizes of one model are made.

    Raises:
        UserError: Sizes that the family cannot have, that are larger, or that a part cannot be cut to; text
            that is missing.
    """
    new = target_anatomy(old, settings.to, follow=groups_of_one(old))
    layers = _layers(old, new, settings, calibrate, judge)
    new = with_config(new, per_layer(old, layers))
    check_blocks(old, new, layers)
    resized = tuple(resized_groups(old, new, layers))
    if not resized and not layers:
        raise UserError("the model has these sizes already", where="shrink", fix="name a smaller one in `to`")
    for item in resized:
        check_shrinkable(old, item)
    rng = np.random.default_rng(settings.seed)
    scores = _scores(old, resized, settings, ImportanceContext(old, (), read, names, calibrate, rng), judge)
    context, result = WidthContext(old, new, layers, resized, rng), Widening()
    for item in resized:
        result.maps[item.group.name] = _map(context, item, scores.get(item.origin), settings)
    _rescale(context, result, settings)
    reshape = result.reshape(context, seed=settings.seed, inexact=_cuts(context))
    if settings.refit != "none" and resized:
        fitted = refit_outputs(reshape, calibrate("refit"), read, ridge=settings.ridge, toward=settings.refit)
        reshape = replace(reshape, made=fitted)
    if settings.rescale == "calibrated" and resized:
        factors = calibrated_factors(reshape, calibrate("rescale: calibrated"), read, names)
        reshape = replace(reshape, factors=factors)
    return reshape


def arranged(old: Anatomy, scores: Scores) -> Reshape:
    """The same function with entries in order of importance, so that every prefix is a good sub-network.

    Exact: nothing is cut. Groups whose order means something stay as they are.

    Args:
        old: The model.
        scores: Group name to importance, `(size,)`.
    """
    maps = {
        name: select(np.argsort(-score, kind="stable"))
        for name, score in scores.items()
        if old.groups[name].order == "free"
    }
    return Reshape(old=old, new=old, maps=maps)


def groups_of_one(old: Anatomy) -> dict[str, str]:
    """The key of the number of key/value heads, to that of the heads, where each head has its own."""
    config = old.table.config
    heads, groups = (next((k for k, v in config.items() if v == size), "") for size in ("g * r", "g"))
    return {groups: heads} if groups and old.sizes["r"] == 1 else {}


def _layers(
    old: Anatomy, new: Anatomy, settings: ShrinkSettings, calibrate: Calibrate, judge: Judge | None
) -> dict[str, LayerMap]:
    from warmstart.shape.similarity import block_similarity

    way, own = depths.choose(settings.depth, where="depth")
    fewer = [stack for stack, count in new.layers.items() if count != old.layers[stack]]
    for stack in fewer:
        if new.layers[stack] > old.layers[stack]:
            raise UserError(
                f"the {stack} would grow from {old.layers[stack]} to {new.layers[stack]} layers",
                where="shrink",
                fix="grow it in a step of its own",
            )
    if fewer and "shrinks" not in way.tags:
        ways = [entry.name for entry in depths if "shrinks" in entry.tags]
        raise UserError(
            f"the way {way.name} makes a model deeper", where="shrink", fix=f"take one of {', '.join(ways)}"
        )
    measured: Mapping[str, np.ndarray] = {}
    if fewer and "text" in way.tags:
        measured = judge.similarity if judge else block_similarity(calibrate(f"the depth {way.name!r}"))
    return {
        stack: way.target(own, old.layers[stack], new.layers[stack], *([measured[stack]] if measured else []))
        for stack in fewer
    }


def _scores(
    old: Anatomy,
    resized: tuple[Resized, ...],
    settings: ShrinkSettings,
    context: ImportanceContext,
    judge: Judge | None,
) -> Scores:
    way, own = importances.choose(settings.importance, where="importance")
    fixed = rotating(old) == old.sizes.get("e")
    wanted = [item for item in resized if not by_prefix(item) and not (fixed and item.letter == "e")]
    groups = {item.origin: old.groups[item.origin] for item in wanted}
    if not groups:
        return {}
    asked = tuple(groups.values())
    found = judge.scores(asked) if judge else way.target(own, replace(context, groups=asked))
    reverse = getattr(own, "reverse", False)
    return {name: -score if reverse else score for name, score in found.items()}


def _map(
    context: WidthContext, item: Resized, scores: np.ndarray | None, settings: ShrinkSettings
) -> AxisMap:
    size = item.group.size
    if by_prefix(item):
        return select(np.arange(size))
    scores = np.zeros(item.size) if scores is None else scores
    if item.letter == "e" and context.old.rotary:
        index = rotary_places(context.old, context.new, scores)
    else:
        index = best(scores, size)
    return select(index, scale=1.0 if settings.rescale == "none" else math.sqrt(item.size / size))


def _rescale(context: WidthContext, result: Widening, settings: ShrinkSettings) -> None:
    keep_scores(context, result, spread=settings.rescale != "none")
    hidden = [item for item in context.resized if item.letter in ("H", "T")]
    if any(item.letter == "H" for item in hidden):
        split_last_norm(context, result)
    if settings.norms == "compensate":
        for item in hidden:
            stretch_norms(context, result, item)
        result.inexact.clear()


def _cuts(context: WidthContext) -> list[str]:
    """What was cut, in words."""
    found = [
        f"the {stack} has {len(layers)} of {context.old.layers[stack]} layers"
        for stack, layers in context.layers.items()
    ]
    sizes = {item.letter: (item.size, item.group.size) for item in context.resized}
    axes = context.old.table.axes
    return found + [f"{axes[x].meaning} cut from {a} to {b}" for x, (a, b) in sizes.items()]
