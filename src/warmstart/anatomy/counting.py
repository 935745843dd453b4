"""Parameters and floating-point operations, counted from the table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from warmstart.anatomy.expressions import evaluate
from warmstart.anatomy.notation import TensorSpec

if TYPE_CHECKING:
    from warmstart.anatomy.model import Anatomy


@dataclass(frozen=True)
class ParameterCounts:
    """Number of parameters per part; shared tensors count once, where they first appear.

    Attributes:
        embeddings: Input rows of the vocabulary and token types.
        positions: Position tables, relative-position biases.
        attention: Projections of all attentions with their biases.
        mlp: Feed-forward matrices with their biases.
        norms: Gains and biases of all norms in the body.
        head: Head rows when untied, its transform and bias.
        other: Pooler, classifiers.
        total: Sum of the parts.
        non_embedding: `total` without embeddings, positions and the untied head's rows.
    """

    embeddings: int
    positions: int
    attention: int
    mlp: int
    norms: int
    head: int
    other: int
    total: int
    non_embedding: int

    def as_dict(self) -> dict[str, int]:
        """All numbers by name."""
        return asdict(self)


def count_parameters(anatomy: Anatomy, names: Iterable[str] | None = None) -> ParameterCounts:
    """Count the language model's parameters, or those of the stored tensors `names`."""
    if names is None:
        specs: Iterable[TensorSpec] = anatomy.language_model.values()
    else:
        canonical = {spec.tied_to or spec.name for spec in anatomy.recognise(names).values()}
        specs = [anatomy.tensors[name] for name in canonical]
    parts = dict.fromkeys(("embeddings", "positions", "attention", "mlp", "norms", "head", "other"), 0)
    head_rows = 0
    for spec in specs:
        if spec.tied_to is None:
            parts[spec.part] += spec.size
            head_rows += spec.size if spec.name == anatomy.vocabulary.head_rows else 0
    total = sum(parts.values())
    tables = parts["embeddings"] + parts["positions"] + head_rows
    return ParameterCounts(**parts, total=total, non_embedding=total - tables)


def count_flops(
    anatomy: Anatomy,
    sequence_length: int,
    *,
    target_length: int | None = None,
    predicted_fraction: float = 1.0,
) -> float:
    """Floating-point operations of one forward pass over one sequence.

    `FLOPs = Σ_w 2·size(w)·n_w + Σ_a 4·heads·e·n_query·n_key`

    over the weights `w` that tokens are multiplied by (a multiply-add is 2 operations) and the attentions
    `a` (scores and weighted sum), where `n` is the length of the sequence that the weight reads. Causal
    masks do not halve the scores, as in Kaplan et al. (arXiv:2001.08361) and torch's counter; lookups,
    norms, activations, softmax and rotations (well under one percent) are not counted.

    Args:
        anatomy: The model.
        sequence_length: Tokens in; of an encoder-decoder model, tokens of the encoder.
        target_length: Tokens of the decoder of an encoder-decoder model; `sequence_length` if not given.
        predicted_fraction: Share of the tokens for which the head is computed; training a masked model
            may skip the rest.
    """
    stacks = list(anatomy.layers)
    lengths = dict.fromkeys(stacks, sequence_length)
    if len(stacks) > 1 and target_length is not None:
        lengths[stacks[-1]] = target_length
    source = lengths.get("encoder", sequence_length) if len(stacks) > 1 else sequence_length
    total = 0.0
    for spec in anatomy.language_model.values():
        if spec.is_matmul:
            tokens: float = source if spec.reads == "encoder" else lengths[spec.stack or stacks[-1]]
            total += 2 * spec.size * tokens * (predicted_fraction if spec.unit == "head" else 1)
    for attention in anatomy.table.attention:
        if evaluate(attention.when, anatomy.names):
            width = evaluate(attention.heads, anatomy.sizes) * evaluate(attention.dim, anatomy.sizes)
            queries = lengths[attention.stack]
            keys = source if attention.keys == "encoder" else queries
            total += 4 * width * queries * keys * anatomy.layers[attention.stack]
    return total
