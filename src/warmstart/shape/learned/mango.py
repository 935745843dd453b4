"""Mango: one ring of four tensors maps all matrices of all layers at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from pydantic import Field
from torch import Tensor, nn

from warmstart.anatomy import Factor
from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.draws import generator_of
from warmstart.shape.learned import growths
from warmstart.shape.learned._begin import Start
from warmstart.shape.learned._growth import scaled
from warmstart.shape.learned._ring import Ring, Slot, cut, cut_of
from warmstart.shape.learned.ligo import Ligo, LigoSettings


class MangoSettings(Settings):
    """The ring."""

    rank: int = Field(default=1, ge=1)
    """R, the size of the four bonds of the ring. The paper finds 1 about as good as more."""
    noise: float = Field(default=0.02, ge=0)
    """Deviation of entries on bonds from the second on, which start without effect."""


@growths.register(
    "mango",
    settings=MangoSettings,
    title="Reusing Pretrained Models by Multi-linear Operators for Efficient Training",
    arxiv="2310.10699",
)
class Mango(Ligo):
    """A ring of four small tensors maps the matrices of all kinds and layers together.

    `M2[b', i', o', l'] = sum M1[b, i, o, l] S_B S_O S_L S_I`, cyclic over bonds of size R: every new matrix
    is a mixture of all kinds of matrices of all layers, widened alike.
    [`Ligo`][warmstart.shape.learned.ligo.Ligo] with shared matrices is the case `S_B = 1`, R = 1. There are
    R^2 (B B' + O O' + L L' + I I') parameters; the time to make the weights grows with R^4.

    The paper cuts every matrix into squares of the hidden size: 4 of attention and 2k of an MLP of width k d.
    Widths that are no multiples, grouped heads and gated MLPs have no such squares, and a cut through heads
    breaks rotary positions. Here the kinds that share an axis make a ring: those of attention over whole
    heads (with grouped heads q and o, k and v apart), those of the MLP over its units. Matrices that write
    units and those that read them lie in it the same way round, and have their own S_O and S_I. Biases, norms
    and embeddings, which are no part of the paper's tensor as far as known here, are mapped as in `ligo`,
    with matrices that all layers share.

    Starts as the copies of `width` and `depth` (where layers differ, as in the first one), with what lies on
    further bonds present but without effect. No released code was found; the order of the ring is ours.

    Raises:
        UserError: New blocks that add nothing (`depth: identity`): a ring mixes the layers of all kinds
            alike.
    """

    def __init__(self, settings: MangoSettings, start: Start, state: Mapping[str, Tensor], seed: int) -> None:
        if any(layers.silent for layers in start.deep.layers.values()):
            raise UserError(
                "mango mixes the layers of all matrices alike, so no new block can add nothing",
                where="mango",
                fix="take depth: stack or interleave",
            )
        old = start.old.tensors
        self._cuts = {name: how for name in state if (how := cut_of(start, old[name])) is not None}
        options = LigoSettings(rows="all", share="stack")
        super().__init__(options, start, state, seed, frozenset(self._cuts))
        self.rings = nn.ModuleDict(
            {
                key: self._ring(key, settings, state)
                for key in sorted({how.ring for how in self._cuts.values()})
            }
        )

    def tensor(self, name: str) -> Tensor:
        """A matrix out of its ring; anything else as in `ligo`."""
        spec = self.start.new.tensors[name]
        wide = self.start.wide.new.tensors[self.start.deep.origin(spec).name]
        how = self._cuts.get(wide.name)
        if how is None:
            return super().tensor(name)
        ring, sizes = self.rings[how.ring], [factor.size for factor in wide.factors]
        back = [how.order.index(i) for i in sorted(how.order)]
        assert isinstance(ring, Ring) and spec.layer is not None
        parts = []
        for number, slot in enumerate(ring.slots):
            if slot.template == spec.template:
                flat = ring.made(number, spec.layer, how.units, how.hidden)
                parts.append(flat.reshape([sizes[i] for i in how.order]).permute(back))
        made = parts[0] if how.fused is None else torch.stack(parts, how.fused)
        return scaled(scaled(wide.unview(made), wide, self.start.wide), spec, self.start.deep)

    def _ring(self, key: str, settings: MangoSettings, state: Mapping[str, Tensor]) -> Ring:
        start, old = self.start, self.start.old.tensors
        mine = {name: how for name, how in self._cuts.items() if how.ring == key and old[name].layer == 0}
        stack = key.partition(":")[0]
        count = start.old.layers[stack]
        slots: list[Slot] = []
        weights: list[Tensor] = []
        units: dict[str, Tensor] = {}
        hidden: dict[str, Tensor] = {}
        for name, how in mine.items():
            spec = old[name]
            for place in range(1 if how.fused is None else spec.factors[how.fused].size):
                slots.append(Slot(spec.template, None if how.fused is None else place))
                layers = [spec.template.replace("{l}", str(layer)) for layer in range(count)]
                weights.append(torch.stack([cut(old[n], state[n].detach(), how, place) for n in layers]))
            factors = [spec.factors[i] for i in how.order]
            if how.units not in units:
                units[how.units] = self._product(factors[: how.grows], how.units)
            if how.hidden not in hidden:
                hidden[how.hidden] = self._product(factors[how.grows + how.passes :], how.hidden)
        mixing = torch.eye(count, dtype=torch.float64)
        if stack in start.deep.layers:
            mixing = torch.from_numpy(start.mixing("", stack))
        return Ring(
            slots,
            torch.stack(weights),
            mixing,
            units,
            hidden,
            rank=settings.rank,
            noise=settings.noise,
            generator=generator_of(self.seed, key),
        )

    def _product(self, factors: Sequence[Factor], role: str) -> Tensor:
        """The map of several axes at once, `(new, old)`; one entry where none grows."""
        found = [torch.ones(1, 1, dtype=torch.float64)]
        for factor in factors:
            axis = self.map_of(factor)
            assert axis is not None
            found.append(self.matrix_start(axis, factor.size, f"{factor.group}:{role}"))
        return reduce(torch.kron, found)
