"""What wider axes ask of norms and heads."""

from __future__ import annotations

import math

import numpy as np

from warmstart.shape.groups import Resized
from warmstart.shape.width import Widening, WidthContext


def split_last_norm(context: WidthContext, result: Widening) -> None:
    """Mark what feeds a tied head, whose rows are copied and not split; keep the head's own scale.

    Of T5's tied head the hidden states are multiplied by `d^-1/2`, which changes with d.
    """
    new, old = context.new, context.old
    norm = new.last_norm
    if norm is None or new.table.vocabulary is None:
        return
    parts = [name for name in (f"{norm}.weight", f"{norm}.bias") if name in new.tensors]
    factor = old.vocabulary.head_scale / new.vocabulary.head_scale
    if factor != 1:
        for name in parts:
            result.scale(name, factor)
    if new.tied:
        result.split |= set(parts)


def count_under_norms(context: WidthContext, result: Widening, item: Resized) -> None:
    """Say so where a norm runs over entries of which some are copied more often than others."""
    counts = np.bincount(result.maps[item.group.name].index, minlength=item.size)
    what = context.new.table.axes[item.letter].meaning
    reason = f"a norm runs over copies, and some of the {what} are copied more often than others"
    if "=" in item.roles and counts.min() < counts.max() and reason not in result.inexact:
        result.inexact.append(reason)


def stretch_norms(context: WidthContext, result: Widening, item: Resized) -> None:
    """Norms over more entries, of which the new ones add nothing to the sum of squares.

    `x / sqrt(sum x^2 / D + eps') = sqrt(D / d) x / sqrt(sum x^2 / d + eps)` with `eps' = eps d / D`.
    """
    new, ratio = context.new, item.size / item.group.size
    others = False
    for spec in new.tensors.values():
        if spec.part != "norms" and not (spec.unit == "head" and set(spec.roles) == {"="}):
            continue
        if spec.factors[0].group != item.group.name:
            others |= spec.tied_to is None
        elif not spec.name.endswith(".bias"):
            result.scale(spec.name, math.sqrt(ratio))
    eps = new.norm_eps_key
    result.config[eps] = context.old.norm_eps * ratio
    if others:
        result.inexact.append(f"other norms share {eps}, which follows the hidden size")
    if new.norm_kind == "layer" and new.residual == "post":
        result.inexact.append(
            "after a LayerNorm in the residual stream the mean of the entries is no longer a sum of the "
            "parts' means; a whole multiple of the hidden size is exact"
        )
    elif new.norm_kind == "layer" and new.last_norm and ".transform." in new.last_norm:
        result.inexact.append("the head's transform has an activation before its norm")
