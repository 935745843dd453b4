"""LiGO: one matrix per axis and one mixture of layers per kind of tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from warmstart.anatomy import Factor, TensorSpec
from warmstart.foundation.settings import Settings
from warmstart.shape.draws import generator_of
from warmstart.shape.learned import growths
from warmstart.shape.learned._begin import Start, dense
from warmstart.shape.learned._growth import Growth, scaled
from warmstart.shape.maps import AxisMap


class LigoSettings(Settings):
    """What is learned, and where it is shared."""

    rows: Literal["new", "all"] = "new"
    """What learns of the matrix of an axis: the rows of its new entries, below the old ones, which stay (as
    in the released code); or all of it."""
    share: Literal["layer", "stack"] = "layer"
    """Whether each layer has its own matrices for its heads and units, or all layers of a stack the same."""
    consumers: Literal["own", "tied"] = "own"
    """Weights that read an axis have a matrix of their own, which starts by dividing among copies; or they
    share that of the weights which write it (as in the released code), and the function is lost at first."""
    depth_noise: float = Field(default=0.0, ge=0)
    """Mixtures of layers start as copies, plus so much times a uniform draw, divided by their sum (released
    code: 0.03). They learn without it as well."""


class Expansion(nn.Module):
    """The matrix `(new, old)` along one axis: `[top; rows]`.

    Args:
        start: `(m, n)`, where it begins.
        rows: What learns. With `new` the first n rows must be a diagonal, which stays.
    """

    top: Tensor | None

    def __init__(self, start: Tensor, rows: Literal["new", "all"]) -> None:
        super().__init__()
        size = start.shape[1]
        diagonal = torch.equal(start[:size], torch.diag(start[:size].diagonal()))
        kept = rows == "new" and diagonal
        self.register_buffer("top", start[:size].diagonal().clone() if kept else None, persistent=False)
        self.rows = nn.Parameter(start[size:].clone() if kept else start.clone())

    def along(self, tensor: Tensor, dim: int) -> Tensor:
        """The tensor with its dimension `dim` mapped."""
        moved = tensor.movedim(dim, 0)
        flat = moved.reshape(moved.shape[0], -1)
        made = self.rows @ flat
        if self.top is not None:
            made = torch.cat([flat * self.top[:, None], made])
        return made.reshape(-1, *moved.shape[1:]).movedim(0, dim)

    def matrix(self) -> Tensor:
        """The whole matrix."""
        return self.rows if self.top is None else torch.cat([torch.diag(self.top), self.rows])


@growths.register(
    "ligo",
    settings=LigoSettings,
    title="Learning to Grow Pretrained Models for Efficient Transformer Training",
    arxiv="2303.00980",
)
class Ligo(Growth):
    """`W'_l = sum_j D[l, j] O_j W_j I_j^T`, with O, I and D learned.

    - One pair O, I `(new, old)` per axis group that grows, wherever the group occurs: one for the residual
      stream, so embeddings, norms, outputs and head agree; one for the heads and one for the units of each
      layer. Norms follow O.
    - One D `(new layers, old layers)` per kind of tensor in a stack that gets deeper; biases have their own.
    - Heads are mixed as wholes, so rotary positions stay what they are; q, k, v and the columns that read
      them go by the same heads, where the released code has one matrix each for q, k and v, over all entries
      of all heads.

    Starts as the copies of `width` and `depth`, so before learning this is `grow`. The released code starts
    from random new rows and shares matrices between producers and consumers, so that its large model begins
    anew in part; `consumers: tied` and `depth_noise: 0.03` are its choices. It also unties the head, which is
    not needed: a tied head follows the residual stream, and the last norm is divided in its place.
    """

    def __init__(
        self,
        settings: LigoSettings,
        start: Start,
        state: Mapping[str, Tensor],
        seed: int,
        apart: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(start, state, apart)
        self.settings, self.seed = settings, seed
        self.axes, self.depths = nn.ModuleDict(), nn.ParameterDict()
        kind = next(iter(state.values())).dtype
        for name in self.names:
            spec = start.new.tensors[name]
            if start.deep.origin(spec).name in apart:
                continue
            self._add_axes(spec, kind)
            key = self._depth_key(spec)
            if start.layers(spec) and key not in self.depths:
                self.depths[key] = nn.Parameter(self._depth_start(spec).to(kind))

    def tensor(self, name: str) -> Tensor:
        """`sum_j D[l, j] O_j W_j I_j^T`, or `O (sum_j D[l, j] W_j) I^T` where layers share O and I."""
        spec = self.start.new.tensors[name]
        wide = self.start.wide.new.tensors[self.start.deep.origin(spec).name]
        layers = self.start.layers(spec)
        if not layers:
            made = self._wide(wide, self.small(wide.name))
        else:
            weights = self.depths[self._depth_key(spec)][spec.layer]
            if self.settings.share == "stack":
                made = self._wide(wide, _mixed([self.small(layer) for layer in layers], weights))
            else:
                specs = [self.start.wide.new.tensors[layer] for layer in layers]
                made = _mixed([self._wide(layer, self.small(layer.name)) for layer in specs], weights)
        return scaled(made, spec, self.start.deep)

    def _wide(self, spec: TensorSpec, tensor: Tensor) -> Tensor:
        """An old tensor along all of its axes."""
        view = self.start.old.tensors[spec.name].view(tensor)
        for dim, (factor, role) in enumerate(zip(spec.factors, spec.roles)):
            if (key := self._axis_key(spec, factor, role)) is not None:
                view = self.axes[key].along(view, dim)  # type: ignore[operator]
        return scaled(spec.unview(view), spec, self.start.wide)

    def map_of(self, factor: Factor) -> AxisMap | None:
        """Where the entries of an axis start from: with shared matrices, as in the first layer."""
        name = factor.group or ""
        if self.settings.share == "stack" and "." in name:
            name = f"{name.partition('.')[0]}.0"
        return self.start.wide.maps.get(name)

    def _axis_key(self, spec: TensorSpec, factor: Factor, role: str) -> str | None:
        axis = self.map_of(factor)
        if axis is None:
            return None
        if role == "=" and spec.name in self.start.wide.split:
            role = "i"
        elif role == "=" and axis.new.any():
            role = "bias" if spec.name.endswith(".bias") else "gain"
        elif role != "i":
            role = "o"
        if role == "i" and self.settings.consumers == "tied":
            role = "o"
        group = str(factor.group)
        group = group.partition(".")[0] if self.settings.share == "stack" else group.replace(".", "-")
        return f"{group}:{role}"

    def _add_axes(self, spec: TensorSpec, kind: torch.dtype) -> None:
        names = self.start.layers(spec) or [self.start.deep.origin(spec).name]
        for wide in (self.start.wide.new.tensors[name] for name in names):
            before = self.start.old.tensors[wide.name].factors
            for factor, old, role in zip(wide.factors, before, wide.roles):
                key = self._axis_key(wide, factor, role)
                if key is not None and key not in self.axes:
                    axis = self.map_of(factor)
                    assert axis is not None
                    found = self.matrix_start(axis, old.size, key).to(kind)
                    self.axes[key] = Expansion(found, self.settings.rows)

    def matrix_start(self, axis: AxisMap, size: int, key: str) -> Tensor:
        """Where a matrix begins; what reads new entries that are zero is a random mixture of old columns."""
        role = key.rpartition(":")[2]
        found = torch.from_numpy(dense(axis, size, role))
        if role == "i" and axis.noise and axis.new.any():
            drawn = torch.randn(found.shape, generator=generator_of(self.seed, key), dtype=torch.float64)
            found[axis.new] = (drawn * (axis.noise / math.sqrt(size)))[axis.new]
        return found

    def _depth_key(self, spec: TensorSpec) -> str:
        return spec.template.replace(".", "-")

    def _depth_start(self, spec: TensorSpec) -> Tensor:
        found = self.start.mixing(spec.template, str(spec.stack))
        if self.settings.depth_noise:
            drawn = torch.rand(found.shape, generator=generator_of(self.seed, spec.template))
            loud = found.any(1)  # a block that adds nothing begins so
            noisy = found[loud] + self.settings.depth_noise * np.asarray(drawn, dtype=np.float64)[loud]
            found[loud] = noisy / noisy.sum(1, keepdims=True)
        return torch.from_numpy(found)


def _mixed(tensors: list[Tensor], weights: Tensor) -> Tensor:
    """`sum_j weights[j] tensors[j]`."""
    made = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:]):
        made = torch.addcmul(made, tensor, weight)
    return made
