"""How a family computes with its tensors: norms, residual stream, queries, outputs, sites for hooks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from warmstart.anatomy.expressions import evaluate
from warmstart.anatomy.notation import TensorSpec
from warmstart.foundation.errors import UserError, nearest

if TYPE_CHECKING:
    from warmstart.anatomy.tables import FamilyTable


class Traits:
    """The part of an [`Anatomy`][warmstart.anatomy.model.Anatomy] that says how its tensors act."""

    if TYPE_CHECKING:
        table: FamilyTable
        config: Mapping[str, Any]
        sizes: Mapping[str, int]
        layers: Mapping[str, int]
        tensors: Mapping[str, TensorSpec]

        @property
        def names(self) -> dict[str, Any]: ...

        @property
        def family(self) -> str: ...

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

    def site(self, kind: str, *, stack: str | None = None, layer: int | None = None) -> str:
        """Name of a module for hooks and adapters, such as `("mlp_output", layer=3)`.

        Args:
            kind: `embeddings`, `block`, `attention` (the module that holds the projections of queries, keys
                and values), `attention_output` and `mlp_output` (the modules whose output is added to the
                residual stream: linear, or a whole mixture of experts), `mlp`, `cross_attention`,
                `cross_attention_output`, `final_norm`.
            stack: Stack of an encoder-decoder model; the first one if not given.
            layer: Block index, for kinds that exist once per block.

        Raises:
            UserError: This family has no such site there.
        """
        if kind not in self.table.sites:
            raise UserError(f"no site {kind!r} in {self.family}", fix=nearest(kind, self.table.sites))
        index = list(self.layers).index(stack) if stack else 0
        template = (self.table.sites[kind] * len(self.layers))[index]
        limit = self.layers[stack or next(iter(self.layers))]
        if not template or ("{l}" in template and (layer is None or not 0 <= layer < limit)):
            raise UserError(f"no site {kind!r} at layer {layer} of {stack or 'the first stack'}")
        return template.replace("{l}", str(layer))
