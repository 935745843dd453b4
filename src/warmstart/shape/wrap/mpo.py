"""Matrix product operators that share their central core among layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.wrap import Place, WrapContext, wraps
from warmstart.shape.wrap._chain import decompose, factors
from warmstart.shape.wrap._low_rank import best_factors, zero_factors

if TYPE_CHECKING:
    import torch

    from warmstart.checkpoint.forms.mpo import MatrixProduct


class MpoSettings(Settings):
    """How a matrix is cut into cores, and which of them layers share."""

    cores: int = Field(default=5, ge=3)
    """n: cores of a matrix, an odd number; the middle one is the central core."""
    factors: dict[int, list[int]] = {}
    """Size of a matrix to its n factors, in place of those that are found, such as `{768: [3, 4, 4, 4, 4]}`;
    they are used in this order for outputs and in the opposite one for inputs."""
    truncate: int | None = Field(default=None, ge=1)
    """Largest bond between two cores; none keeps the decomposition exact."""
    share: Literal["central", "all", "none"] = "central"
    """What the layers share, for each kind of matrix: the central core, the whole matrix (as ALBERT does,
    without an adapter), or nothing."""
    central_cores: int = Field(default=1, ge=1)
    """Into how many runs of neighbouring layers a stack is divided, each with shared cores of its own."""
    donor: Literal["mean"] | int = "mean"
    """Which matrix is decomposed for the layers that share: the mean of theirs, or that of one layer (its
    index in the run, -1 for the last one)."""
    adapter_rank: int = Field(default=8, ge=0)
    """r of the low-rank adapter that each layer has of its own."""
    adapter: Literal["residual", "zero"] = "residual"
    """Whether adapters begin with the best approximation of what sharing and cutting lose, or add nothing."""
    depth_scale: bool = False
    """Multiply what a layer has of its own by `(2 L)^(-1/4)`, L layers, as the paper does for very deep
    models; the matrices become smaller."""

    @model_validator(mode="after")
    def _odd(self) -> MpoSettings:
        if self.cores % 2 == 0:
            raise ValueError(
                f"cores must be an odd number, so that one is the central one; {self.cores} is even"
            )
        for size, own in self.factors.items():
            if len(own) != self.cores:
                raise ValueError(f"{size} needs {self.cores} factors, one per core, and {len(own)} are given")
        return self


@wraps.register(
    "mpo",
    settings=MpoSettings,
    title="Scaling Pre-trained Language Models to Deeper via Parameter-efficient Architecture",
    arxiv="2303.16753",
)
def mpo(settings: MpoSettings, context: WrapContext) -> dict[str, MatrixProduct]:
    """`W_l = T_1l T_2l C T_4l T_5l + D_l U_l`: the large central core C is one for all layers of a kind.

    A matrix (I, J) with `I = i_1 … i_n` and `J = j_1 … j_n` is cut into cores by n - 1 singular value
    decompositions (see [`decompose`][warmstart.shape.wrap._chain.decompose]); the central one has about nine
    tenths of the entries. One matrix is decomposed for all layers that share, the donor, and each layer
    begins with a copy of its other cores; adapters take up part of how the layers differ. So a model of any
    depth begins from a shallow one: `grow` it first, which copies layers, or let the donor be a model whose
    layers are all equal, which it reproduces exactly. With `share: none` and without `truncate` every matrix
    is what it was.

    A shared matrix costs `sum_k b_{k-1} i_k j_k b_k` parameters once for the centre and once per layer for
    the others, with `b_k = min(prod_{m<=k} i_m j_m, prod_{m>k} i_m j_m)`, and `r (I + J)` per adapter. 12
    layers of 768 x 768 share 589,824 entries and have 74,016 each of their own.

    Differences from the released code (lpyhdzx/MPOBERT-code): it has no adapters, which the paper
    describes without their rank; here the cores beside the centre are orthogonal and the centre alone holds
    the scale, where it spreads the singular values by their roots and inverse roots. `depth_scale` follows
    the paper's formula as remembered, on the first core and on D.

    Raises:
        UserError: Factors that do not fit, or a donor layer that is not there.
    """
    made: dict[str, MatrixProduct] = {}
    for places in context.kinds().values():
        runs: dict[int, list[Place]] = {}
        for place in places:
            alone = settings.share == "none"
            run = place.layer if alone else place.layer * settings.central_cores // place.layers
            runs.setdefault(run, []).append(place)
        for together in runs.values():
            made |= _run(settings, together, context.generator)
    return {place.name: made[place.name] for place in context.places}


def _run(settings: MpoSettings, places: list[Place], generator: torch.Generator) -> dict[str, MatrixProduct]:
    """The chains of layers that share."""
    from torch import nn

    from warmstart.checkpoint.forms.mpo import MatrixProduct, contract

    donor = _donor(settings, places)
    sizes = [_factors(settings, size) for size in donor.shape]
    cores = decompose(donor, sizes[0], sizes[1][::-1], settings.truncate)
    shared = contract(cores)
    own = (2 * places[0].layers) ** -0.25 if settings.depth_scale else 1.0
    kind = places[0].dtype
    common = [nn.Parameter(core.to(kind, copy=True)) for core in cores]
    made = {}
    for place in places:
        chain = list(common)
        if settings.share != "all":
            chain = [nn.Parameter(core.to(kind, copy=True)) for core in cores]
            chain[0].data.mul_(own)
            if settings.share == "central":
                chain[len(cores) // 2] = common[len(cores) // 2]
        adapter = None
        if settings.adapter_rank and settings.share != "all":
            dense = place.matrix()
            if settings.adapter == "residual":
                b, a = best_factors(dense - shared, settings.adapter_rank, generator, of=dense)
            else:
                b, a = zero_factors(dense, settings.adapter_rank, generator)
            adapter = nn.Parameter((b * own).to(kind)), nn.Parameter(a.to(kind))
        made[place.name] = MatrixProduct(place.module, chain, adapter)
    return made


def _donor(settings: MpoSettings, places: list[Place]) -> torch.Tensor:
    if settings.donor == "mean":
        mean = places[0].matrix()
        for place in places[1:]:
            mean += place.matrix()
        return mean / len(places)
    if not -len(places) <= settings.donor < len(places):
        raise UserError(
            f"there is no layer {settings.donor} among {len(places)} that share",
            where="donor",
            fix=f"give 0 to {len(places) - 1}, or mean",
        )
    return places[settings.donor].matrix()


def _factors(settings: MpoSettings, size: int) -> list[int]:
    from math import prod

    own = settings.factors.get(size)
    if own is not None and prod(own) != size:
        raise UserError(
            f"{'·'.join(map(str, own))} is {prod(own)}",
            where="factors",
            fix=f"the factors of {size} must give {size}",
        )
    return own or factors(size, settings.cores)
