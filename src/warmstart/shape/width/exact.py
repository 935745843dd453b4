"""Growing every axis so that the function stays what it is, wherever that is possible."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.groups import Resized
from warmstart.shape.maps import AxisMap, copies, pad, repeated
from warmstart.shape.selection import rotating
from warmstart.shape.width import Widening, WidthContext, widths
from warmstart.shape.width._norms import count_under_norms, split_last_norm, stretch_norms


class ExactSettings(Settings):
    """How entries are added."""

    hidden: Literal["auto", "copy", "pad"] = "auto"
    """How the hidden axis grows: `copy`, by a whole factor only; `pad`, to any size; `auto` copies where it
    can be done."""
    split: Literal["uneven", "even"] = "uneven"
    """How consumers are divided among copies. Equal copies with equal shares learn the same for ever."""
    noise: float = Field(default=1.0, ge=0)
    """What reads new entries that are zero may be random: its deviation, as a share of the tensor's own. With
    0 such entries have no gradient on either side."""


@widths.register(
    "exact",
    settings=ExactSettings,
    title="LEMON: Lossless Model Expansion",
    arxiv="2310.07999",
    tags=("exact",),
)
def exact(settings: ExactSettings, context: WidthContext) -> Widening:
    """Copy units and split what reads them, or append entries that nothing depends on.

    - Units of an MLP, heads, groups of heads: copies; the output projection's columns are split.
    - Hidden axis by a whole factor k: copies, which keep the mean and the mean square that norms divide by.
      A tied head cannot be split, so the gain of the last norm is.
    - Hidden axis to any size: zeros before an RMSNorm, the mean of the stream before a LayerNorm, with gains
      times `sqrt(d / D)` and epsilon times `d / D`.
    - Size of a head without rotary positions: zero queries and keys, queries times `sqrt(e' / e)`
      ([`keep_scores`][warmstart.shape.scores.keep_scores]). With rotary positions its frequencies would
      change; GPT-NeoX can append places that do not rotate.

    The idea of appending the mean is LEMON's; Net2Net's and bert2BERT's copies with equal counts are the
    rest. Where a family cannot be grown exactly, the answer says why: a post-norm encoder (BERT) to a hidden
    size that is no multiple, heads that share the epsilon (Qwen3), some heads twice under one norm over all
    (OLMoE).

    Raises:
        UserError: A smaller axis, or one that cannot grow.
    """
    result = Widening()
    for item in context.resized:
        if item.group.size < item.size:
            raise UserError(
                f"{context.new.table.axes[item.letter].meaning} would shrink from {item.size} to "
                f"{item.group.size}",
                where="exact",
                fix="shrink it in a step of its own",
            )
        if item.letter == "H":
            result.maps[item.group.name] = _hidden(settings, context, item, result)
        elif item.letter in ("e", "d"):
            result.maps[item.group.name] = _head_size(settings, context, item, result)
        elif "o" in item.roles and item.letter not in ("V", "C", "B"):
            rng = context.rng if settings.split == "uneven" else None
            result.maps[item.group.name] = copies(repeated(item.size, item.group.size), rng=rng)
            count_under_norms(context, result, item)
        elif item.roles == {"k"} and item.letter != "B":  # rows behind those that inputs reach today
            result.maps[item.group.name] = copies(repeated(item.size, item.group.size))
        else:
            raise UserError(
                f"{context.new.table.axes[item.letter].meaning} cannot grow without changing the function",
                where="exact",
            )
    return result


def _hidden(settings: ExactSettings, context: WidthContext, item: Resized, result: Widening) -> AxisMap:
    whole = item.group.size % item.size == 0
    if settings.hidden == "copy" and not whole:
        raise UserError(
            f"the hidden size can only be copied to a multiple of {item.size}, not to {item.group.size}",
            where="exact",
            fix=f"take {(item.group.size // item.size + 1) * item.size}, or hidden: pad",
        )
    split_last_norm(context, result)
    if whole and settings.hidden != "pad":
        rng = context.rng if settings.split == "uneven" else None
        return copies(repeated(item.size, item.group.size), rng=rng)
    result.split.clear()  # a zero adds nothing to a tied head
    stretch_norms(context, result, item)
    fill: Literal["zero", "mean"] = "zero" if context.new.norm_kind == "rms" else "mean"
    return pad(item.size, item.group.size, fill=fill, noise=settings.noise)


def _head_size(settings: ExactSettings, context: WidthContext, item: Resized, result: Widening) -> AxisMap:
    if context.new.rotary:
        result.config |= _fewer_rotate(context, item)
    return pad(item.size, item.group.size, noise=settings.noise)


def _fewer_rotate(context: WidthContext, item: Resized) -> dict[str, Any]:
    """Configuration of GPT-NeoX heads of which the same places rotate as before, and the new ones do not."""
    config = context.old.config
    ropes = dict(config.get("rope_parameters") or {})
    told = "partial_rotary_factor" in ropes or config.get("rotary_pct") is not None
    if context.old.family != "gpt_neox" or not told:
        raise UserError(
            "the size of a head with rotary positions cannot grow without changing the function: its "
            "frequencies depend on it",
            where="exact",
            fix="add heads instead",
        )
    places = rotating(context.old)
    smaller = places / item.group.size
    if int(item.group.size * smaller) != places:
        smaller = math.nextafter(smaller, 1.0)
    return (
        {"rope_parameters": {**ropes, "partial_rotary_factor": smaller}} if ropes else {"rotary_pct": smaller}
    )
