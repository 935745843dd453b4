"""Ways to learn how a model grows, one file each: a map from all small weights to all large ones.

A way is `make(settings, start, state, seed) -> Growth`, a module whose parameters are the map: it holds the
small weights, gives every weight of the large model, and before it learns it gives what
[`grow`][warmstart.shape.grow.grow] gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from warmstart.foundation.registry import Registry

if TYPE_CHECKING:
    import torch

    from warmstart.shape.learned._begin import Start
    from warmstart.shape.learned._growth import Growth

Learn = Callable[[Any, "Start", Mapping[str, "torch.Tensor"], int], "Growth"]
growths: Registry[Learn] = Registry("growth", "warmstart.shape.learned")
