"""Consumers of a cut axis, fitted to what they wrote before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np

from warmstart.shape.calibration import Calibration, Hook, wide
from warmstart.shape.consumers import Consumer, as_consumer, places
from warmstart.shape.reshape import Read, Reshape

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_MOST = 2 << 30
"""Bytes of second moments that are held at a time; the text is read again for the next consumers."""


def refit_outputs(
    reshape: Reshape,
    calibration: Calibration,
    read: Read,
    *,
    ridge: float = 1e-3,
    toward: Literal["cut", "zero"] = "cut",
) -> dict[str, Tensor]:
    """Output projections of MLPs and attentions, fitted to the uncut ones by ridge regression.

    Args:
        reshape: The surgery.
        calibration: The old model and its text.
        read: Gives old tensors by canonical name.
        ridge: Strength, as a share of the mean square of the inputs that stay.
        toward: See [`refitted`][warmstart.shape.refit.refitted].

    Returns:
        Canonical name to tensor of the new model, of the type of the old one, for every projection into the
        residual stream some of whose inputs were cut.
    """
    found = {}
    for chosen in _portions(list(_cut(reshape, calibration)), _MOST):
        moments = second_moments(calibration, {consumer.module: kept for _, consumer, kept in chosen})
        for name, consumer, kept in chosen:
            spec = reshape.new.tensors[name]
            before = read(consumer.spec.name)
            weight = wide(before).double()
            weight = weight.T if consumer.transposed else weight
            moment = moments[consumer.module].double()
            fitted = refitted(weight, moment, kept, ridge=ridge, toward=toward)
            rows = places(next(dim for dim in spec.dims if dim.role == "o"), consumer.writes, reshape.maps)
            fitted = fitted[rows]
            found[name] = (fitted.T if consumer.transposed else fitted).to(before.dtype).contiguous()
    return found


def second_moments(calibration: Calibration, kept: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """`S[:, K] = sum x x_K^T` over all positions, of the input x `(n,)` of each module: `(n, k)`.

    Args:
        calibration: Model and text.
        kept: Module to the places K of its input that stay.
    """
    import torch

    found: dict[str, Tensor] = {}

    def watch(module: str) -> Hook:
        chosen = torch.from_numpy(kept[module]).to(calibration.model.device)

        def hook(given: Tensor, made: Tensor) -> None:
            flat = wide(given).flatten(0, -2)
            part = flat.T @ flat.index_select(1, chosen)
            found[module] = found[module].add_(part) if module in found else part

        return hook

    calibration.read([(module, watch(module)) for module in kept])
    return {module: moment.cpu() for module, moment in found.items()}


def refitted(
    weight: torch.Tensor,
    moment: torch.Tensor,
    kept: np.ndarray,
    *,
    ridge: float = 1e-3,
    toward: Literal["cut", "zero"] = "cut",
) -> torch.Tensor:
    """The weights on the inputs that stay which best give what all inputs gave, `(o, k)`.

    `min_W' sum |W x - W' x_K|^2 + lambda |W' - W0|^2`, so `W' = (W S[:, K] + lambda W0) (S[K, K] + lambda
    I)^-1` with `S = sum x x^T` and lambda a share of the mean diagonal of `S[K, K]`.

    With `toward="cut"`, `W0 = W[:, K]`: the error on the text is never larger than that of the plain cut, and
    inputs that are never active keep their weights. With `"zero"`, `W0 = 0`, as in the source (a third-party
    repository), where every output shrinks a little.

    Args:
        weight: `(o, n)`, W.
        moment: `(n, k)`, `S[:, K]`.
        kept: `(k,)`, K.
        ridge: Lambda as a share of the mean diagonal of `S[K, K]`.
        toward: Where the weights are drawn to.
    """
    import torch

    chosen = torch.from_numpy(kept)
    inner = moment.index_select(0, chosen)
    strength = ridge * float(inner.diagonal().mean()) or torch.finfo(inner.dtype).tiny
    target = weight @ moment
    if toward == "cut":
        target = target + strength * weight.index_select(1, chosen)
    inner = inner + strength * torch.eye(len(kept), dtype=inner.dtype)
    return torch.linalg.solve(inner, target, left=False)


def _cut(reshape: Reshape, calibration: Calibration) -> Iterator[tuple[str, Consumer, np.ndarray]]:
    """New name, old projection and the inputs that stay, of each projection that loses some."""
    for stack, count in reshape.new.layers.items():
        for layer in range(count):
            for name in reshape.new.outputs(stack, layer):
                spec = reshape.new.tensors[name]
                old = reshape.origin(spec)
                there = calibration.anatomy.tensors.get(old.name)
                consumer = as_consumer(there, calibration.model) if there else None
                if consumer is None:
                    continue
                now = next(dim for dim in spec.dims if dim.role == "i")
                if now.size < consumer.reads.size:
                    yield name, consumer, places(now, consumer.reads, reshape.maps)


def _portions(
    cut: list[tuple[str, Consumer, np.ndarray]], most: int
) -> Iterator[list[tuple[str, Consumer, np.ndarray]]]:
    """Consumers whose second moments fit into memory together; one at a time if a single one does not."""
    portion: list[tuple[str, Consumer, np.ndarray]] = []
    size = 0
    for item in cut:
        needed = 8 * item[1].reads.size * len(item[2])
        if portion and size + needed > most:
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += needed
    if portion:
        yield portion
