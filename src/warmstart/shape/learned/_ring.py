"""The ring of tensors of Mango, and how matrices are cut to lie in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from warmstart.anatomy import TensorSpec
from warmstart.shape.learned._begin import Start


class Slot(NamedTuple):
    """One matrix of each layer: a kind of tensor, or one place of a fused q, k, v."""

    template: str
    place: int | None


class Ring(nn.Module):
    """`W'[b', l'] = sum B[p, b', b, q] U[q, u', u, r] L[r, l', l, s] H[s, h', h, p] W[b, l, u, h]`.

    b are slots that read or write the same units (heads, or units of an MLP), l layers, u units and h entries
    of the residual stream; entries of heads, and axes that keep their size, pass through. Each slot takes the
    U and H of its roles: produced or consumed.

    Args:
        slots: The b.
        weights: `(b, l, u, t, h)`, t what passes through.
        kinds: Start of B, the identity.
        layers: Start of L `(l', l)`.
        units: Role to the start of U `(u', u)`.
        hidden: Role to the start of H `(h', h)`.
        rank: Size of the bonds.
        noise: Deviation of what starts without effect.
        generator: Draws it.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        weights: Tensor,
        layers: Tensor,
        units: Mapping[str, Tensor],
        hidden: Mapping[str, Tensor],
        *,
        rank: int,
        noise: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.slots = list(slots)
        self.register_buffer("weights", weights, persistent=False)
        kind = weights.dtype

        def core(start: Tensor, quiet: str) -> nn.Parameter:
            """`(R, new, old, R)`: the start on the first bonds, noise on others but those that must be 0."""
            found = noise * torch.randn(rank, *start.shape, rank, generator=generator, dtype=torch.float64)
            if quiet == "all":
                found.zero_()
            elif quiet == "last":
                found[:, :, :, 0] = 0
            elif quiet == "first":
                found[0] = 0
            found[0, :, :, 0] = start
            return nn.Parameter(found.to(kind))

        # Of any way round the ring on other bonds than the first, one core is zero; all have a gradient.
        self.kinds = core(torch.eye(len(self.slots)), "last")
        self.units = nn.ParameterDict({role: core(start, "all") for role, start in units.items()})
        self.layers = core(layers, "first")
        self.hidden = nn.ParameterDict({role: core(start, "none") for role, start in hidden.items()})

    def made(self, slot: int, layer: int, units: str, hidden: str) -> Tensor:
        """`(u', t, h')` of one slot in one new layer, by the roles in which it has its units and hidden axis.

        Mixed over slots and layers first, while the weights are small.
        """
        kinds, layers = self.kinds[:, slot], self.layers[:, layer]
        mixed = torch.einsum("pbq,rls,bluth->pqrsuth", kinds, layers, self.weights)
        thin = torch.einsum("pqrsuth,syhp->qruty", mixed, self.hidden[hidden])
        return torch.einsum("qruty,qxur->xty", thin, self.units[units])


class Cut(NamedTuple):
    """A matrix as `(units that grow, what passes through, residual stream if it grows)`.

    Attributes:
        ring: Which ring it belongs to: its stack and the axes of its units.
        order: Dimensions of the viewed tensor, its constant one left out, in the order of the cut.
        fused: The constant dimension; None without.
        grows: How many of `order` are units that grow.
        passes: How many of `order` pass through.
        units: Role of the units.
        hidden: Role of the residual stream.
    """

    ring: str
    order: tuple[int, ...]
    fused: int | None
    grows: int
    passes: int
    units: str
    hidden: str


def cut_of(start: Start, spec: TensorSpec) -> Cut | None:
    """How a tensor of the old model is cut; None for what is no matrix between units and residual stream."""
    if spec.stack is None or "{l}" not in spec.template or not spec.is_matmul or len(spec.dims) != 2:
        return None
    stream = [i for i, factor in enumerate(spec.factors) if factor.group == "H"]
    if len(stream) != 1:
        return None
    names = [spec.template.replace("{l}", str(layer)) for layer in range(start.old.layers[spec.stack])]
    if any(name not in start.old.tensors for name in names):
        return None
    wide = start.wide.new.tensors[spec.name].factors
    rest = [i for i, f in enumerate(spec.factors) if f.axis is not None and i not in stream]
    rest.sort(key=lambda i: str(spec.factors[i].axis))
    counted = [str(spec.factors[i].axis) for i in rest if max(spec.factors[i].size, wide[i].size) > 1]
    grows = [i for i in rest if spec.factors[i].group in start.wide.maps]
    passes = [i for i in rest if i not in grows]
    if "H" not in start.wide.maps:
        passes, last = passes + stream, []
    else:
        last = stream
    return Cut(
        ring=f"{spec.stack}:{''.join(counted)}",
        order=(*grows, *passes, *last),
        fused=next((i for i, f in enumerate(spec.factors) if f.axis is None), None),
        grows=len(grows),
        passes=len(passes),
        units=spec.roles[rest[0]],
        hidden=spec.roles[stream[0]],
    )


def cut(spec: TensorSpec, tensor: Tensor, how: Cut, place: int) -> Tensor:
    """`(u, t, h)` of a stored tensor, or of one place of its constant dimension."""
    view = spec.view(tensor)
    order = list(how.order)
    if how.fused is not None:
        view = view.select(how.fused, place)
        order = [i - (i > how.fused) for i in order]
    view = view.permute(order)
    sizes = [1, 1, 1]
    for position, size in enumerate(view.shape):
        sizes[(position >= how.grows) + (position >= how.grows + how.passes)] *= size
    return view.reshape(sizes)
