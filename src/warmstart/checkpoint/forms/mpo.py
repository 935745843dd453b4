"""Matrix product operators: a matrix as a chain of small cores, of which layers may share some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Self

import torch
from torch import nn

from warmstart.checkpoint.forms import forms
from warmstart.checkpoint.forms._wrapped import Wrapped, WrappedForm


class MatrixProduct(Wrapped):
    """`W = T_1 T_2 … T_n + D U`: cores `(b_{k-1}, i_k, j_k, b_k)`, and a low-rank adapter.

    Outputs are numbered by `(i_1, …, i_n)` and inputs by `(j_1, …, j_n)`, row-major; `b_0 = b_n = 1`.
    W is multiplied out in every forward pass, outside of autocast, for a chain of rounded products drifts:
    this saves parameters and not time.

    Args:
        old: The map that it replaces.
        cores: T_1 … T_n.
        adapter: D `(outputs, r)` and U `(r, inputs)`, or None.
    """

    b: nn.Parameter | None
    a: nn.Parameter | None
    keys = ("output_factors", "input_factors", "ranks", "adapter_rank")

    def __init__(
        self,
        old: nn.Module,
        cores: Sequence[nn.Parameter],
        adapter: tuple[nn.Parameter, nn.Parameter] | None = None,
    ) -> None:
        super().__init__(old)
        self.cores = nn.ParameterList(cores)
        # under these names the optimizer `restarts` finds two factors
        self.register_parameter("b", adapter[0] if adapter else None)
        self.register_parameter("a", adapter[1] if adapter else None)
        self.output_factors = [core.shape[1] for core in cores]
        self.input_factors = [core.shape[2] for core in cores]
        self.ranks = [core.shape[3] for core in cores[:-1]]
        self.adapter_rank = adapter[0].shape[1] if adapter else 0

    @property
    def centre(self) -> int:
        """Which core is the central one."""
        return len(self.cores) // 2

    @classmethod
    def empty(cls, old: nn.Module, sizes: Mapping[str, Any]) -> Self:
        """A chain of these sizes with open values."""
        weight: Any = old.weight
        bonds = [1, *sizes["ranks"], 1]
        shapes = zip(bonds[:-1], sizes["output_factors"], sizes["input_factors"], bonds[1:], strict=True)
        cores = [nn.Parameter(weight.new_empty(shape)) for shape in shapes]
        outputs, inputs, rank = (
            prod(sizes["output_factors"]),
            prod(sizes["input_factors"]),
            sizes["adapter_rank"],
        )
        factors = weight.new_empty(outputs, rank), weight.new_empty(rank, inputs)
        return cls(old, cores, (nn.Parameter(factors[0]), nn.Parameter(factors[1])) if rank else None)

    def matrix(self) -> torch.Tensor:
        """The chain multiplied out, from both ends to the centre, with the adapter."""
        with torch.autocast(self.cores[0].device.type, enabled=False):
            whole = contract(list(self.cores))
            return whole if self.b is None or self.a is None else whole + self.b @ self.a


def contract(cores: Sequence[torch.Tensor]) -> torch.Tensor:
    """The matrix `(i_1 … i_n, j_1 … j_n)` of a chain of cores `(b_{k-1}, i_k, j_k, b_k)`."""
    count, centre = len(cores), len(cores) // 2
    left = cores[0].new_ones(1, 1)
    for core in cores[:centre]:
        left = (left @ core.flatten(1)).view(-1, core.shape[3])
    right = cores[0].new_ones(1, 1)
    for core in reversed(cores[centre + 1 :]):
        right = (core.flatten(0, 2) @ right).view(core.shape[0], -1)
    middle = cores[centre]
    whole = (left @ middle.flatten(1)).view(-1, middle.shape[3]) @ right
    pairs = whole.view([size for core in cores for size in core.shape[1:3]])
    outputs = prod(core.shape[1] for core in cores)
    return pairs.permute(*range(0, 2 * count, 2), *range(1, 2 * count, 2)).reshape(outputs, -1)


forms.register(
    "mpo",
    title="Scaling Pre-trained Language Models to Deeper via Parameter-efficient Architecture",
    arxiv="2303.16753",
)(WrappedForm(MatrixProduct))
