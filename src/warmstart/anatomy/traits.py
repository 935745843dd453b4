"""How a family computes with its tensors: norms, residual stream, queries, outputs of the blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from warmstart.anatomy.expressions import evaluate
from warmstart.anatomy.notation import TensorSpec

if TYPE_CHECKING:
    from warmstart.anatomy.tables import FamilyTable


class Traits:
    """The part of an [`Anatomy`][warmstart.anatomy.model.Anatomy] that says how its tensors act."""

    if TYPE_CHECKING:
        table: FamilyTable
        config: Mapping[str, Any]
        sizes: Mapping[str, int]
        tensors: Mapping[str, TensorSpec]

        @property
        def names(self) -> dict[str, Any]: ...

    @property
    def norm_kind(self) -> Literal["rms", "layer"]:
        """Whether norms divide by the root mean square, or subtract the mean first."""
        return self.table.norm.kind

    @property
    def norm_eps_key(self) -> str:
        """Config key of the epsilon that all norms share."""
        return self.table.norm.eps

    @property
    def norm_eps(self) -> float:
        """Epsilon of the norms."""
        return float(self.config[self.norm_eps_key])

    @property
    def last_norm(self) -> str | None:
        """Module whose output only the head reads, such as `model.norm`; None where there is none."""
        return self.table.last_norm

    @property
    def residual(self) -> Literal["pre", "post"]:
        """`pre` when a block whose [`outputs`][warmstart.anatomy.traits.Traits.outputs] are zero is the
        identity, `post` when norms stand in the residual stream."""
        return self.table.residual

    @property
    def rotary(self) -> bool:
        """Whether positions rotate the entries of a head, so that its size decides the frequencies."""
        return bool(evaluate(self.table.rotary, self.names))

    def score_scale(self, layer: int = 0) -> float:
        """Factor of `q·k` before the softmax: `e ** -0.5`, or 1 in T5."""
        return float(evaluate(self.table.score_scale, {**self.names, **self.sizes, "layer": layer}))

    @cached_property
    def _blocks(self) -> Mapping[tuple[str | None, int | None], tuple[TensorSpec, ...]]:
        blocks: dict[tuple[str | None, int | None], list[TensorSpec]] = defaultdict(list)
        for spec in self.tensors.values():
            blocks[spec.stack, spec.layer].append(spec)
        return {place: tuple(specs) for place, specs in blocks.items()}

    def block(self, stack: str, layer: int) -> tuple[TensorSpec, ...]:
        """The tensors of one block, in order of the table."""
        return self._blocks.get((stack, layer), ())

    def queries(self, stack: str, layer: int) -> dict[str, int | None]:
        """The tensors of a block that, multiplied by `c` together, multiply all its queries by `c`.

        The value is the place of the queries in the constant factor of a fused q, k, v dimension
        (`3` in GPT-2's `H:i (3 h e):o`), or None when the tensor holds queries alone. Where a norm inside the
        head undoes any factor of the projection (Qwen3), it is the norm's gain.
        """
        table, names = self.table.queries, self.names
        return {
            spec.name: table[spec.template].index
            for spec in self.block(stack, layer)
            if spec.template in table and evaluate(table[spec.template].when, names)
        }

    def outputs(self, stack: str, layer: int) -> tuple[str, ...]:
        """The weights and biases of a block whose output is added to the residual stream."""
        return tuple(spec.name for spec in self.block(stack, layer) if spec.template in self.table.outputs)
