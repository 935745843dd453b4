"""The weighted mean."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.merge import Tensors, merges

if TYPE_CHECKING:
    import torch


class LinearSettings(Settings):
    """How weights are taken."""

    normalize: bool = True
    """Divide by the sum of the weights."""


@merges.register(
    "linear",
    settings=LinearSettings,
    title="Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing "
    "inference time",
    arxiv="2203.05482",
)
def linear(settings: LinearSettings, tensors: Tensors) -> Iterator[torch.Tensor]:
    """`sum_i w_i x_i / sum_i w_i`; without weights the plain mean.

    Raises:
        UserError: Weights that add up to nothing.
    """
    weights = tensors.weighted()
    total = sum(weights) if settings.normalize else 1.0
    if abs(total) < 1e-8:
        raise UserError("the weights add up to zero", where="linear", fix="set normalize: false")
    shares = [weight / total for weight in weights]
    for first, *others in zip(*(model() for model in tensors.models)):
        merged = first * shares[0]
        for part, share in zip(others, shares[1:]):
            merged = merged + part * share
        yield merged
