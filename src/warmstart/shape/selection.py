"""Which entries of an axis stay."""

from __future__ import annotations

import numpy as np

from warmstart.anatomy import Anatomy
from warmstart.foundation.errors import UserError
from warmstart.shape.groups import Resized


def by_prefix(item: Resized) -> bool:
    """Whether only the first entries of a group can stay: rows of a table that inputs choose by number."""
    return item.roles == {"k"}


def check_shrinkable(old: Anatomy, item: Resized) -> None:
    """Refuse an axis that would grow, or that cannot be cut.

    Raises:
        UserError: Says which axis, and why.
    """
    axis = old.table.axes[item.letter]
    if item.group.size > item.size:
        raise UserError(
            f"{axis.meaning} would grow from {item.size} to {item.group.size}",
            where="shrink",
            fix="grow it in a step of its own",
        )
    bound = item.letter in ("V", "C", "B", "X") or ("N" in old.table.axes and item.letter in "NPpcs")
    if bound or not (by_prefix(item) or "o" in item.roles):
        raise UserError(f"{axis.meaning} cannot be cut: its entries have a meaning outside", where="shrink")


def rotating(anatomy: Anatomy) -> int:
    """How many places of a head rotate with the position."""
    if not anatomy.rotary:
        return 0
    ropes = dict(anatomy.config.get("rope_parameters") or {})
    usual = 0.25 if anatomy.family == "gpt_neox" else 1.0  # as transformers has it
    share = ropes.get("partial_rotary_factor", anatomy.config.get("rotary_pct", usual))
    return int(anatomy.sizes["e"] * float(share))


def best(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` entries with the highest scores, in their old order; of equal ones the first."""
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def rotary_places(old: Anatomy, new: Anatomy, scores: np.ndarray) -> np.ndarray:
    """The places of a rotary head that stay, `(e',)`.

    Place i rotates together with `i + R/2` by the frequency `theta^(-2i/R)`, R being how many rotate. A head
    with `R' = R/k` has the frequencies of the pairs `0, k, 2k, …`: these stay, so every pair rotates as
    before. Of the places that do not rotate (GPT-NeoX) the most important stay.

    Args:
        old: The larger model.
        new: The smaller one.
        scores: `(e,)` importance of the places.

    Raises:
        UserError: A size whose frequencies the larger head does not have.
    """
    before, after = rotating(old), rotating(new)
    if not after or before % after or after % 2:
        raise UserError(
            f"a rotary head of {old.sizes['e']} entries cannot shrink to {new.sizes['e']}: it does not have "
            "the frequencies of the smaller one",
            where="shrink",
            fix=f"possible are {_possible(old)}; or drop whole heads",
        )
    half, step = before // 2, before // after
    pairs = np.arange(after // 2) * step
    rest = before + best(scores[before:], new.sizes["e"] - after)
    return np.concatenate([pairs, half + pairs, rest])


def _possible(old: Anatomy) -> str:
    size, before = old.sizes["e"], rotating(old)
    found = []
    for smaller in range(size - 1, 0, -1):
        after = before * smaller // size
        if after and after % 2 == 0 and before % after == 0 and smaller - after <= size - before:
            found.append(str(smaller))
    return ", ".join(found[:4]) or "none"
