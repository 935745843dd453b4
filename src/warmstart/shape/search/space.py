"""The sizes that a search may choose from, and how many parameters a sub-network of each has."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping

import numpy as np
from pydantic import Field

from warmstart.anatomy import Anatomy
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import Settings
from warmstart.shape.groups import resized_groups
from warmstart.shape.maps import LayerMap
from warmstart.shape.selection import check_shrinkable, rotary_places
from warmstart.shape.shrink import groups_of_one
from warmstart.shape.target import possible_anatomy, target_anatomy

Sizes = tuple[int, ...]
"""One value per key of the space, in its order."""


class Range(Settings):
    """Every `step`-th size from `min` to `max`."""

    min: int = Field(ge=1)
    """Smallest size."""
    max: int | None = Field(default=None, ge=1)
    """Largest size; the model's own by default, which always belongs to the range."""
    step: int = Field(default=1, ge=1)
    """Distance of sizes, counted from `min`."""


class Choices:
    """All combinations of values, one per key, of which some are no model.

    Attributes:
        keys: What is chosen.
        values: What each may be, ascending.
        full: The values of the whole model.
    """

    keys: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    full: Sizes

    @property
    def count(self) -> int:
        """How many combinations there are, possible or not."""
        return math.prod(len(values) for values in self.values)

    def __iter__(self) -> Iterator[Sizes]:
        """All combinations, possible or not."""
        return itertools.product(*self.values)

    def draw(self, rng: np.random.Generator) -> Sizes:
        """A combination, each key uniform, possible or not."""
        return tuple(values[rng.integers(len(values))] for values in self.values)

    def named(self, sizes: Sizes) -> dict[str, int]:
        """Values by their keys."""
        return dict(zip(self.keys, sizes, strict=True))

    def parameters(self, sizes: Sizes) -> int | None:
        """What a checkpoint of these values stores; None where there is no such model."""
        raise NotImplementedError


class Space(Choices):
    """All combinations of sizes by configuration keys, of which the family cannot have every one.

    Args:
        old: The model whose sub-networks are meant.
        choices: Configuration key to its sizes.
        fixed: Further keys, which have one size in all sub-networks.
        names: Canonical names of what the model stores; all tensors of its language model by default.

    Raises:
        UserError: A key that says nothing about the shape, or a size above the model's own.
    """

    def __init__(
        self,
        old: Anatomy,
        choices: Mapping[str, list[int] | Range],
        *,
        fixed: Mapping[str, int] | None = None,
        names: Collection[str] | None = None,
    ) -> None:
        self.old, self.fixed = old, dict(fixed or {})
        own = _own_sizes(old, [*choices, *self.fixed])
        self.keys = tuple(choices)
        self.values = tuple(values_of(key, choice, own[key]) for key, choice in choices.items())
        self.full: Sizes = tuple(own[key] for key in self.keys)
        self._own = own
        self._follow = groups_of_one(old)
        held = old.language_model if names is None else names
        self._templates = {old.tensors[name].template for name in held}
        self._known: dict[Sizes, int | None] = {}

    def named(self, sizes: Sizes) -> dict[str, int]:
        """Sizes by their keys, fixed ones included."""
        return {**self.fixed, **dict(zip(self.keys, sizes, strict=True))}

    def is_source(self, sizes: Sizes) -> bool:
        """Whether nothing would be cut."""
        return all(self._own[key] == size for key, size in self.named(sizes).items())

    def parameters(self, sizes: Sizes) -> int | None:
        """What a checkpoint of these sizes stores; None where the family cannot have them.

        Counted from the shapes that are written, tied tensors once. (The counter of plm_pruning keeps the
        whole d x d output projection of an attention that keeps any head.)
        """
        if sizes not in self._known:
            self._known[sizes] = self._count(sizes)
        return self._known[sizes]

    def anatomy(self, sizes: Sizes) -> Anatomy | None:
        """The model of these sizes; None where the family cannot have it or a part cannot be cut to it."""
        new = possible_anatomy(self.old, self.named(sizes), follow=self._follow)
        if new is None or any(new.layers[stack] > count for stack, count in self.old.layers.items()):
            return None
        layers = {stack: LayerMap.of(range(count)) for stack, count in new.layers.items()}
        try:
            for item in resized_groups(self.old, new, layers):
                check_shrinkable(self.old, item)
                if item.letter == "e" and self.old.rotary:
                    rotary_places(self.old, new, np.zeros(item.size))
        except UserError:
            return None
        return new

    def _count(self, sizes: Sizes) -> int | None:
        new = self.anatomy(sizes)
        if new is None:
            return None
        specs = (spec for spec in new.tensors.values() if spec.template in self._templates)
        return sum(spec.size for spec in specs if spec.tied_to is None)


def _own_sizes(old: Anatomy, keys: list[str]) -> dict[str, int]:
    written = {**old.config, **old.config_updates()}
    known = [key for key in old.table.config if isinstance(written.get(key), int)]
    for key in keys:
        if key not in known:
            raise UserError(
                f"{key!r} is no size of a {old.model_type}", where="space", fix=nearest(key, known)
            )
    own = {key: int(written[key]) for key in keys}
    target_anatomy(old, own)  # refuses what belongs to the tokenizer
    return own


def values_of(key: str, choice: list[int] | Range, own: int) -> tuple[int, ...]:
    """The sizes that a setting names, ascending.

    Args:
        key: What they are sizes of.
        choice: The setting.
        own: The model's own size.

    Raises:
        UserError: None at all, or one that the model does not reach.
    """
    if isinstance(choice, Range):
        most = choice.max or own
        found = [*range(choice.min, most + 1, choice.step), *([own] if choice.max is None else [])]
    else:
        found = list(choice)
    if not found or min(found) < 1 or max(found) > own:
        raise UserError(
            f"{key} is {own} in the model, and the space has {max(found, default='nothing')}",
            where="space",
            fix=f"choose sizes from 1 to {own}",
        )
    return tuple(sorted(set(found)))
