"""The weights that one device of a tensor-parallel group holds: blocks, and what comes before and after them.

Tensor parallelism divides the axes of heads (whole key/value groups), of feed-forward units and of the
vocabulary; norms, positions and the biases of output projections are on every device, as in Shoeybi et al.,
"Megatron-LM: Training Multi-Billion Parameter Language Models Using Model Parallelism" (arXiv 1909.08053).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import gcd, prod

from warmstart.anatomy import Anatomy, TensorSpec
from warmstart.anatomy.expressions import variables


@dataclass(frozen=True)
class Weights:
    """Shapes of the weights of one part of a model.

    Attributes:
        matrices: Sides of attention and feed-forward matrices.
        tables: Sides of all other matrices: embeddings, positions, head.
        vectors: Entries of norms and biases.
    """

    matrices: tuple[tuple[int, int], ...] = ()
    tables: tuple[tuple[int, int], ...] = ()
    vectors: int = 0

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(m * n for m, n in (*self.matrices, *self.tables)) + self.vectors

    @classmethod
    def joined(cls, parts: Iterable[Weights]) -> Weights:
        """All weights of several parts."""
        every = list(parts)
        return cls(
            matrices=tuple(shape for part in every for shape in part.matrices),
            tables=tuple(shape for part in every for shape in part.tables),
            vectors=sum(part.vectors for part in every),
        )


@dataclass(frozen=True)
class Parts:
    """A model as a pipeline sees it.

    Attributes:
        first: What comes before the blocks: embeddings, positions, their norm.
        blocks: Per stack one entry per block; blocks of equal tensors share one object.
        last: What comes after them: final norm, head.
        copied: Table of a tied head, which the last stage holds again when it is not the first.
    """

    first: Weights
    blocks: Mapping[str, tuple[Weights, ...]]
    last: Weights
    copied: Weights

    @property
    def whole(self) -> Weights:
        """Everything, once."""
        every = [weights for blocks in self.blocks.values() for weights in blocks]
        return Weights.joined([self.first, *every, self.last])


def split_axes(anatomy: Anatomy) -> frozenset[str]:
    """Axis letters that tensor parallelism divides: vocabulary, feed-forward units, (groups of) heads.

    Feed-forward units are what the matrices of that part both give and take, the residual stream apart.
    """
    heads = {variables(attention.heads)[0] for attention in anatomy.table.attention}
    matrices = [spec for spec in anatomy.language_model.values() if spec.part == "mlp" and spec.is_matmul]
    given = {letter for spec in matrices for letter in axes_of(spec, "o")}
    taken = {letter for spec in matrices for letter in axes_of(spec, "i")}
    return frozenset({"V"} | heads | ((given & taken) - {"H"}))


def axes_of(spec: TensorSpec, role: str) -> set[str]:
    """Axis letters of the dimensions with this role."""
    return {f.axis for dim in spec.dims if dim.role == role for f in dim.factors if f.axis}


def tensor_sizes(anatomy: Anatomy) -> list[int]:
    """Tensor-parallel sizes that divide heads and feed-forward units into whole parts.

    The vocabulary may be uneven: its largest part counts (Megatron pads it).
    """
    sizes = [anatomy.sizes[axis] for axis in split_axes(anatomy) - {"V"} if axis in anatomy.sizes]
    most = gcd(*sizes)
    return [size for size in range(1, most + 1) if most % size == 0]


def device_shape(spec: TensorSpec, split: frozenset[str], tensor: int) -> tuple[int, ...]:
    """Shape of the part of a weight on one of `tensor` devices."""
    return tuple(
        prod(-(-f.size // tensor) if f.axis in split else f.size for f in dim.factors) for dim in spec.dims
    )


def divide(anatomy: Anatomy, tensor: int = 1) -> Parts:
    """The parts of a model, each as it lies on one of `tensor` devices."""
    split = split_axes(anatomy)
    finals = tuple(f"{name}." for name in anatomy.table.sites.get("final_norm", ()))
    first: list[TensorSpec] = []
    last: list[TensorSpec] = []
    blocks: dict[str, list[list[TensorSpec]]] = {s: [[] for _ in range(n)] for s, n in anatomy.layers.items()}
    for spec in anatomy.language_model.values():
        if spec.tied_to is not None:
            continue
        if spec.stack is not None and spec.layer is not None:
            blocks[spec.stack][spec.layer].append(spec)
        elif spec.unit == "head" or spec.part in ("head", "other") or spec.name.startswith(finals):
            last.append(spec)
        else:
            first.append(spec)
    rows = (
        [anatomy.tensors[anatomy.vocabulary.input_rows[0]]] if anatomy.tied and "V" in anatomy.sizes else []
    )
    known: dict[Weights, Weights] = {}

    def weights(specs: Iterable[TensorSpec]) -> Weights:
        found = Weights.joined(_weights(spec, split, tensor) for spec in specs)
        return known.setdefault(found, found)

    return Parts(
        first=weights(first),
        blocks={stack: tuple(weights(specs) for specs in every) for stack, every in blocks.items()},
        last=weights(last),
        copied=weights(rows),
    )


def _weights(spec: TensorSpec, split: frozenset[str], tensor: int) -> Weights:
    shape = device_shape(spec, split, tensor)
    if len(shape) < 2:
        return Weights(vectors=prod(shape))
    sides = (shape[0], prod(shape[1:]))
    return Weights(matrices=(sides,)) if spec.part in ("attention", "mlp") else Weights(tables=(sides,))
