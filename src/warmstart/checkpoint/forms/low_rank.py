"""Low-rank weights: two thin factors, in the place of a matrix or beside a frozen one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import nn

from warmstart.checkpoint.forms import forms
from warmstart.checkpoint.forms._wrapped import Wrapped, WrappedForm, sizes_of


class LowRank(Wrapped):
    """`W = W_0 + s B A` with `s = alpha / r`; W_0 is frozen, or not there.

    W_0 is a buffer, `base`: whatever is said to learn, it has no gradient and no optimizer state. The
    optimizer `restarts` finds `b` and `a`.

    Args:
        old: The map that it replaces.
        base: W_0 `(outputs, inputs)` or None.
        b: B `(outputs, r)`.
        a: A `(r, inputs)`.
        alpha: The product counts `alpha / r` times.
    """

    keys: ClassVar[tuple[str, ...]] = ("rank", "alpha", "frozen")

    base: torch.Tensor | None

    def __init__(
        self, old: nn.Module, base: torch.Tensor | None, b: torch.Tensor, a: torch.Tensor, alpha: float
    ) -> None:
        super().__init__(old)
        self.register_buffer("base", base)
        self.b, self.a = nn.Parameter(b), nn.Parameter(a)
        self.rank, self.alpha, self.frozen = b.shape[1], float(alpha), base is not None

    @classmethod
    def empty(cls, old: nn.Module, sizes: Mapping[str, Any]) -> Self:
        """A map of these sizes with open values."""
        base, b, a = open_factors(old, sizes)
        return cls(old, base, b, a, sizes["alpha"])

    @property
    def scale(self) -> float:
        """`s = alpha / r`."""
        return self.alpha / self.rank

    def update(self) -> torch.Tensor:
        """`s B A` `(outputs, inputs)`: what was learned beside W_0."""
        return self.scale * (self.b @ self.a)

    def matrix(self) -> torch.Tensor:
        """W."""
        return self.update() if self.base is None else self.base + self.update()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`W_0 x + s B (A x) + b`; the product of the factors is never formed."""
        thin = nn.functional.linear(nn.functional.linear(x, self.a), self.b) * self.scale
        if self.base is None:
            return thin if self.bias is None else thin + self.bias
        return nn.functional.linear(x, self.base, self.bias) + thin


def open_factors(
    old: nn.Module, sizes: Mapping[str, Any]
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """W_0 or None, B and A for the place of `old`, with open values."""
    weight: Any = old.weight
    (outputs, inputs), rank = sizes_of(old), int(sizes["rank"])
    base = weight.new_empty(outputs, inputs) if sizes["frozen"] else None
    return base, weight.new_empty(outputs, rank), weight.new_empty(rank, inputs)


forms.register("low-rank", title="LoRA: Low-Rank Adaptation of Large Language Models", arxiv="2106.09685")(
    WrappedForm(LowRank)
)
