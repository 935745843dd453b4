"""What is trained and how: model, sequences, number types and optimizer; and the slice on one device."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from warmstart.anatomy import Anatomy
from warmstart.foundation.errors import UserError
from warmstart.shape.plan.activations import Attending, Kept, block_bytes, head_bytes, kept_by
from warmstart.shape.plan.numerics import Numerics
from warmstart.shape.plan.operations import Operations, Recompute, operations_of
from warmstart.shape.plan.optimizers import Optimizer
from warmstart.shape.plan.weights import Parts, Weights, divide


@dataclass(frozen=True)
class Workload:
    """One training job, independent of devices.

    Attributes:
        anatomy: The model.
        sequence_length: Tokens per sequence (of the encoder, where there are two stacks).
        numerics: Bytes per number.
        optimizer: What it keeps.
        rank: Rank of optimizers that project gradients.
        attending: How attention and dropout run.
        target_length: Tokens of the decoder of an encoder-decoder model; the sequence length if not given.
        predicted_fraction: Share of the tokens for which the head is computed.
    """

    anatomy: Anatomy
    sequence_length: int
    numerics: Numerics
    optimizer: Optimizer
    rank: int = 0
    attending: Attending = field(default_factory=Attending)
    target_length: int | None = None
    predicted_fraction: float = 1.0
    _slices: dict[int, Slice] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        longest = self.anatomy.max_length
        if longest is not None and self.sequence_length > longest:
            raise UserError(
                f"sequences of {self.sequence_length} tokens are longer than the model's {longest} positions",
                fix=f"use at most {longest}",
            )

    @cached_property
    def operations(self) -> Operations:
        """Operations of a forward pass over one sequence."""
        return operations_of(
            self.anatomy,
            self.sequence_length,
            target_length=self.target_length,
            predicted_fraction=self.predicted_fraction,
        )

    @property
    def layers(self) -> int:
        """Blocks of all stacks."""
        return sum(self.anatomy.layers.values())

    @property
    def tokens(self) -> int:
        """Tokens of one sequence that count: of a model with two stacks, those of both."""
        return sum(self.length(stack) for stack in self.anatomy.layers)

    def length(self, stack: str) -> int:
        """Tokens per sequence in a stack."""
        last = list(self.anatomy.layers)[-1]
        two = len(self.anatomy.layers) > 1
        if two and stack == last and self.target_length is not None:
            return self.target_length
        return self.sequence_length

    def kept(self, stack: str, layer: int) -> Kept:
        """Numbers that a block of `stack` keeps per token."""
        return kept_by(self.anatomy, stack, layer, self.numerics)

    def slice(self, tensor: int) -> Slice:
        """What one of `tensor` devices holds and does."""
        if tensor not in self._slices:
            self._slices[tensor] = Slice(self, tensor, divide(self.anatomy, tensor))
        return self._slices[tensor]


@dataclass(frozen=True)
class Block:
    """Equal blocks on one device.

    Attributes:
        stack: Their stack.
        weights: Weights of one.
        kept: Numbers that one keeps per token.
        count: How many there are.
    """

    stack: str
    weights: Weights
    kept: Kept
    count: int


@dataclass(frozen=True)
class Slice:
    """One device's part of a model under tensor parallelism.

    Attributes:
        workload: The job.
        tensor: Tensor-parallel size.
        parts: Weights on the device.
    """

    workload: Workload
    tensor: int
    parts: Parts
    _memo: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)

    def blocks(self, stages: int = 1, index: int = 0) -> list[Block]:
        """The blocks of pipeline stage `index` of `stages`, equal ones together."""
        if (stages, index) not in self._memo:
            found: list[Block] = []
            for stack, every in self.parts.blocks.items():
                each = len(every) // stages
                mine = range(index * each, (index + 1) * each)
                kinds: dict[int, list[int]] = {}
                for layer in mine:
                    kinds.setdefault(id(every[layer]), []).append(layer)
                for layers in kinds.values():
                    first = layers[0]
                    found.append(Block(stack, every[first], self._kept(stack, first), len(layers)))
            self._memo[stages, index] = found
        return list(self._memo[stages, index])

    def ends(self, stages: int = 1, index: int = 0) -> list[Weights]:
        """What stage `index` of `stages` holds besides blocks."""
        found = [self.parts.first] if index == 0 else []
        if index == stages - 1:
            found.append(self.parts.last)
            if stages > 1:
                found.append(self.parts.copied)
        return found

    def _kept(self, stack: str, layer: int) -> Kept:
        key = (stack, id(self.parts.blocks[stack][layer]))
        if key not in self._memo:
            self._memo[key] = self.workload.kept(stack, layer)
        kept: Kept = self._memo[key]
        return kept

    def state_bytes(self, weights: Weights) -> float:
        """Bytes of the optimizer's state and master weights, undivided."""
        if id(weights) not in self._memo:
            job = self.workload
            self._memo[id(weights)] = job.optimizer.state_bytes(weights, job.numerics, job.rank)
        return float(self._memo[id(weights)])

    def kept_bytes(self, block: Block, recompute: Recompute) -> float:
        """Bytes that a block keeps per sequence without full recomputation."""
        job = self.workload
        return block_bytes(
            block.kept,
            job.numerics,
            job.attending,
            tensor=self.tensor,
            length=job.length(block.stack),
            source_length=job.sequence_length,
            width=job.anatomy.sizes["H"],
            selective=recompute == "selective",
        )

    def input_bytes(self, stack: str) -> float:
        """Bytes of a block's input per sequence: all that full recomputation keeps of it."""
        job = self.workload
        shared = self.tensor if job.attending.sequence_parallel else 1
        return job.length(stack) * job.anatomy.sizes["H"] * job.numerics.residual / shared

    @cached_property
    def head_bytes(self) -> float:
        """Bytes at the head per sequence when the loss is taken; of a model without vocabulary none."""
        job = self.workload
        return head_bytes(
            job.numerics,
            job.attending,
            tensor=self.tensor,
            tokens=job.length(list(job.anatomy.layers)[-1]) * job.predicted_fraction,
            width=job.anatomy.sizes["H"],
            vocabulary=job.anatomy.sizes.get("V", 0),
        )
