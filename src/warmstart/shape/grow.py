"""Growing a model: more layers, and wider ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field

from warmstart.anatomy import Anatomy
from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.calibration import Calibrate, given
from warmstart.shape.depth import depths
from warmstart.shape.groups import check_blocks, resized_groups
from warmstart.shape.maps import LayerMap
from warmstart.shape.reshape import Reshape
from warmstart.shape.scores import keep_scores
from warmstart.shape.target import target_anatomy, with_config
from warmstart.shape.width import Widening, WidthContext, widths


class GrowSettings(Settings):
    """Which size, and how to get there."""

    to: dict[str, int] = Field(min_length=1)
    """Sizes of the new model by their configuration keys, such as `{hidden_size: 512, num_hidden_layers:
    12}`; what is not named stays."""
    width: str | dict[str, Any] = "exact"
    """How axes grow: `exact`, `fpi` or `aki`; or a table `{name: exact, …}` with the way's own settings."""
    depth: str | dict[str, Any] = "identity"
    """Where new layers come from: `identity` (blocks that add nothing), `stack`, `interleave`, `span`; or a
    table with the way's own settings."""
    seed: int = Field(default=0, ge=0)
    """Seed of shares, noise and random choices."""


def grow(old: Anatomy, settings: GrowSettings, *, calibrate: Calibrate | None = None) -> Reshape:
    """The surgery that makes a larger model.

    Args:
        old: The model that exists.
        settings: Which size, and how.
        calibrate: Gives model and text to a way that needs them.

    Raises:
        UserError: Sizes that the family cannot have, that are not larger, or that a way cannot reach.
    """
    new = target_anatomy(old, settings.to)
    layers = _layers(old, new, settings, calibrate or given(None, where="grow"))
    new = with_config(new, per_layer(old, layers))
    check_blocks(old, new, layers)
    rng = np.random.default_rng(settings.seed)
    resized = tuple(resized_groups(old, new, layers))
    if not resized and not layers:
        raise UserError("the model has these sizes already", where="grow", fix="name a larger one under `to`")
    way, own = widths.choose(settings.width, where="width")
    context = WidthContext(old, new, layers, resized, rng)
    found = way.target(own, context) if resized else Widening()
    if not resized or "exact" in way.tags:
        keep_scores(context, found, spread=False)
    inexact = list(found.inexact)
    depth, _ = depths.choose(settings.depth, where="depth")
    if layers and "exact" not in depth.tags:
        inexact.append(f"layers are copied ({depth.name})")
    elif layers and new.residual == "post":
        inexact.append("a block of a post-norm model that adds nothing still normalises")
    if resized and "exact" not in way.tags and not found.inexact:
        inexact.append(f"the way {way.name} keeps the function only in part")
    return found.reshape(context, seed=settings.seed, inexact=inexact)


def _layers(old: Anatomy, new: Anatomy, settings: GrowSettings, calibrate: Calibrate) -> dict[str, LayerMap]:
    from warmstart.shape.similarity import block_similarity

    way, own = depths.choose(settings.depth, where="depth")
    reads, measured = getattr(own, "reads_text", False), None
    rng = np.random.default_rng([settings.seed, 1])
    found = {}
    for stack, count in new.layers.items():
        if count < old.layers[stack]:
            raise UserError(
                f"the {stack} would shrink from {old.layers[stack]} to {count} layers",
                where="grow",
                fix="shrink it in a step of its own",
            )
        if count > old.layers[stack]:
            extra: dict[str, Any] = {"rng": rng} if "random" in way.tags else {}
            if reads:
                measured = measured or block_similarity(calibrate(f"the depth {way.name!r}"))
                extra["similarity"] = measured[stack]
            found[stack] = way.target(own, old.layers[stack], count, **extra)
    return found


def per_layer(old: Anatomy, layers: dict[str, LayerMap]) -> dict[str, Any]:
    """Configuration lists with one entry per layer, and lists of layer numbers, following the layers."""
    order = next(iter(layers.values()), None)
    found = {}
    for key in old.table.per_layer_keys:
        values = old.config.get(key)
        if isinstance(values, list | tuple):
            found[key] = [values[order.origin(i)] for i in range(len(order))] if order else list(values)
    for key in old.table.layer_index_keys:
        if order and (numbers := old.config.get(key)):
            found[key] = [i for i in range(len(order)) if order.origin(i) in numbers]
    return found
