"""Values as words, for terminals and pages alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def plain(value: Any, *, spaced_keys: bool = False) -> str:
    """A cell: whole numbers with thousands, fractions with four digits that matter, nothing as a dash.

    Args:
        value: Anything; lists and tables are written out, separated by commas.
        spaced_keys: Write `_` in the keys of tables as a space.
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(v, spaced_keys=spaced_keys) for v in value)
    if isinstance(value, Mapping):
        keys = ((str(k).replace("_", " ") if spaced_keys else k) for k in value)
        return ", ".join(f"{k} {plain(v, spaced_keys=spaced_keys)}" for k, v in zip(keys, value.values()))
    return str(value)
