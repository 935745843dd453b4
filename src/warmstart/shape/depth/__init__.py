"""Ways to choose the layers of a deeper or shallower model, one file each.

A way is `order(settings, old, new) -> LayerMap`: how many layers there are and how many there shall be, to
the origin of each new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warmstart.foundation.registry import Registry
from warmstart.shape.maps import LayerMap

Order = Callable[[Any, int, int], LayerMap]
depths: Registry[Order] = Registry("way to deepen", "warmstart.shape.depth")
