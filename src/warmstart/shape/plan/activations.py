"""What the forward pass keeps for the backward pass, per token and block, read off the family table.

The counting is that of Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models"
(arXiv 2205.05198): `s b h (34 + 5 a s / h)` bytes per block of a 16-bit GPT with dropout comes out exactly,
and other families follow from their own weights: inputs of matrix products, queries, keys and values, both
sides of the activation function, inputs of norms, and the attention's probabilities where it is not fused.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from warmstart.anatomy import Anatomy, TensorSpec
from warmstart.anatomy.expressions import evaluate
from warmstart.shape.plan.numerics import Numerics
from warmstart.shape.plan.weights import axes_of, split_axes


@dataclass(frozen=True)
class Kept:
    """Numbers that one block keeps per token.

    Attributes:
        residual: Inputs of norms, in the type of the residual stream.
        inputs: Inputs of the matrices that tensor parallelism splits by columns; whole on every device.
        split: Numbers that are divided among the devices of a tensor-parallel group.
        sums: Matrices whose output is summed over the tensor-parallel group (one all-reduce each way).
        heads: Query heads of each attention and whether its keys come from the other stack.
    """

    residual: float
    inputs: float
    split: float
    sums: int
    heads: tuple[tuple[int, bool], ...]


def kept_by(anatomy: Anatomy, stack: str, layer: int, numerics: Numerics) -> Kept:
    """What block `layer` of `stack` keeps per token.

    Single kernels keep a norm's input and an activation function's input. Composed of several operations, as
    in transformers, RMSNorm also keeps the normalised numbers, and GELU in its tanh form its parts; autocast
    makes one small copy of its input for every matrix. An expert keeps its share of the tokens. States of
    another stack that cross-attention reads are kept once for all blocks and are left out, and so are
    rotations.
    """
    split_letters = split_axes(anatomy)
    composed = 0 if numerics.fused else _composed(anatomy)
    residual = inputs = split = 0.0
    modules: set[str] = set()
    summed: set[str] = set()
    for spec in anatomy.language_model.values():
        if (spec.stack, spec.layer) != (stack, layer):
            continue
        if spec.part == "norms" and spec.name.endswith("weight"):
            centred = spec.name.replace("weight", "bias") in anatomy.tensors
            copies = 1 if centred or numerics.fused else 2
            if axes_of(spec, "=") == {"H"}:
                residual += copies * spec.size
            else:  # inside the heads, of what the projection of that name gives
                made = anatomy.tensors.get(spec.name.replace("_norm.", "_proj."))
                split += copies * (0 if made is None else _width(made, "o"))
        if not spec.is_matmul or spec.part not in ("attention", "mlp"):
            continue
        module = spec.name.removesuffix(".weight").rpartition(".")[0]
        if axes_of(spec, "i") & split_letters:  # back to the residual stream
            summed.add(module if spec.part == "attention" else "mlp")
            units = spec.share * _width(spec, "i")
            split += units if spec.part == "attention" else (1 + composed) * units
            continue
        # behind a second matrix into the feed-forward units (a gate's) stands a product that keeps both sides
        again = 2 if spec.part == "mlp" and module in modules else 1
        split += spec.share * _width(spec, "o") * again
        if spec.reads == "self" and (module not in modules or numerics.cast):
            inputs += spec.share * _width(spec, "i")
        if axes_of(spec, "o") & split_letters:
            modules.add(module)
    heads = tuple(
        (int(evaluate(attention.heads, anatomy.sizes)), attention.keys == "encoder")
        for attention in anatomy.table.attention
        if attention.stack == stack and evaluate(attention.when, anatomy.names)
    )
    return Kept(residual=residual, inputs=inputs, split=split, sums=len(summed), heads=heads)


def _composed(anatomy: Anatomy) -> int:
    """Numbers per feed-forward unit that an activation function of several operations keeps besides."""
    config = anatomy.config
    names = [config.get(key) for key in ("hidden_act", "activation_function", "feed_forward_proj")]
    name = next((str(name) for name in names if name), "gelu_new" if anatomy.family == "gpt2" else "")
    return 3 if name in ("gelu_new", "gelu_fast", "gelu_pytorch", "gated-gelu") else 0


def _width(spec: TensorSpec, role: str) -> int:
    return prod(dim.size for dim in spec.dims if dim.role == role)


@dataclass(frozen=True)
class Attending:
    """How attention and dropout run.

    Attributes:
        fused: Whether attention never stores its probabilities (scaled-dot-product kernels).
        dropout: Whether dropout is on.
        sequence_parallel: Whether norms and dropout divide the sequence among a tensor-parallel group.
    """

    fused: bool = True
    dropout: bool = False
    sequence_parallel: bool = True


def block_bytes(
    kept: Kept,
    numerics: Numerics,
    attending: Attending,
    *,
    tensor: int,
    length: int,
    source_length: int,
    width: int,
    selective: bool = False,
) -> float:
    """Bytes that one block keeps per sequence on one of `tensor` devices.

    Args:
        kept: From [`kept_by`][warmstart.shape.plan.activations.kept_by].
        numerics: Bytes per number.
        attending: How attention and dropout run.
        tensor: Tensor-parallel size.
        length: Tokens of the stack per sequence.
        source_length: Tokens of the other stack, for cross-attention.
        width: Hidden size.
        selective: Whether probabilities are computed again instead of stored.
    """
    c, masks = numerics.compute, kept.sums if attending.dropout else 0
    whole = kept.residual * numerics.residual + kept.inputs * c + masks * width
    per_token = whole / (tensor if attending.sequence_parallel else 1) + kept.split * c / tensor
    scores = 0.0
    for heads, crossed in kept.heads:
        keys = source_length if crossed else length
        if attending.fused:
            scores += 4 * heads  # logarithm of the sum per query, float32
        elif not selective:
            scores += heads * keys * (numerics.probability + (c + 1 if attending.dropout else 0))
    return length * (per_token + scores / tensor)


def head_bytes(
    numerics: Numerics, attending: Attending, *, tensor: int, tokens: float, width: int, vocabulary: int
) -> float:
    """Bytes at the head when the loss is taken: its input, the final norm's, logits, their float32
    log-probabilities and their gradient."""
    own = width * (numerics.residual + numerics.compute) / (tensor if attending.sequence_parallel else 1)
    return tokens * (own + -(-vocabulary // tensor) * (numerics.compute + 8))
