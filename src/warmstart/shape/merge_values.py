"""Parameters of a merge that change with the layer or the name of a tensor, as mergekit's files have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from warmstart.foundation.errors import UserError

Values = float | list[float] | list[dict[str, Any]]
"""A number; numbers spread over the layers; or such values behind filters on tensor names."""

_LAYER = re.compile(r"\.(\d+)\.")


def layer_of(name: str) -> int | None:
    """Number of the layer that a stored tensor belongs to."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def value_at(parameters: Mapping[str, Values], key: str, *, name: str, layers: int) -> float | None:
    """The parameter `key` for the tensor `name`; None where it is not given.

    A list of n numbers stands at n places spread evenly from the first layer to the last; between them values
    are interpolated. Tensors outside of the layers take the first number.

    Raises:
        UserError: A value of another form.
    """
    given: Any = parameters.get(key)
    if isinstance(given, list) and given and isinstance(given[0], dict):
        given = next(
            (item.get("value") for item in given if (item.get("filter") or "") in name),
            None,
        )
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float | list) or given == []:
        raise UserError(f"{key} must be a number or a list of numbers, got {given!r}", where="merge")
    if not isinstance(given, list):
        return float(given)
    layer = layer_of(name)
    if layer is None or layers < 2 or len(given) == 1:
        return float(given[0])
    place = layer / (layers - 1) * (len(given) - 1)
    low = min(int(place), len(given) - 2)
    return float(given[low] + (given[low + 1] - given[low]) * (place - low))
