"""Parameters and floating-point operations, counted from the table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from warmstart.anatomy.expressions import evaluate
from warmstart.anatomy.notation import TensorSpec

if TYPE_CHECKING:
    from warmstart.anatomy.model import Anatomy


@dataclass(frozen=True)
class ParameterCounts:
    """Number of parameters per part; shared tensors count once, where they first appear.

    Attributes:
        embeddings: Input rows of the vocabulary and token types, projection of image patches, class tokens.
        positions: Position tables, relative-position biases.
        attention: Projections of all attentions with their biases.
        mlp: Feed-forward matrices with their biases, experts and routers.
        norms: Gains and biases of all norms in the body.
        head: Head rows when untied, its transform and bias.
        other: Pooler, classifiers.
        total: Sum of the parts.
        non_embedding: `total` without embeddings, positions and the untied head's rows.
        active: Those that one token meets: all but the experts to which it is not routed.
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
    active: int

    def as_dict(self) -> dict[str, int]:
        """All numbers by name; `active` only where it is not `total`."""
        return {name: n for name, n in asdict(self).items() if name != "active" or n != self.total}


def count_parameters(anatomy: Anatomy, names: Iterable[str] | None = None) -> ParameterCounts:
    """Count the language model's parameters, or those of the stored tensors `names`."""
    if names is None:
        specs: Iterable[TensorSpec] = anatomy.language_model.values()
    else:
        found = anatomy.recognise(names).values()
        owners = (anatomy.tensors[spec.tied_to] if spec.tied_to else spec for spec in found)
        specs = {spec.name: spec for spec in owners}.values()
    parts = dict.fromkeys(("embeddings", "positions", "attention", "mlp", "norms", "head", "other"), 0)
    head_rows, active = 0, Fraction()
    rows = anatomy.table.vocabulary.head_rows if anatomy.table.vocabulary else None
    for spec in specs:
        if spec.tied_to is None:
            parts[spec.part] += spec.size
            head_rows += spec.size if spec.name == rows else 0
            active += spec.size * spec.share
    total = sum(parts.values())
    tables = parts["embeddings"] + parts["positions"] + head_rows
    return ParameterCounts(**parts, total=total, non_embedding=total - tables, active=round(active))


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
    `a` (scores and weighted sum), where `n` is the length of the sequence that the weight reads; of the
    experts of a mixture only those to which a token is routed count. Causal masks do not halve the scores, as
    in Kaplan et al. (arXiv:2001.08361) and torch's counter; lookups, norms, activations, softmax and
    rotations (well under one percent) are not counted.

    Args:
        anatomy: The model.
        sequence_length: Tokens in; of an encoder-decoder model, tokens of the encoder; of a vision model,
            patches of the image.
        target_length: Tokens of the decoder of an encoder-decoder model; `sequence_length` if not given.
        predicted_fraction: Share of the tokens for which the head is computed; training a masked model
            may skip the rest.
    """
    stacks = list(anatomy.layers)
    lengths = dict.fromkeys(
        stacks, sequence_length + int(evaluate(anatomy.table.added_tokens, anatomy.names))
    )
    if len(stacks) > 1 and target_length is not None:
        lengths[stacks[-1]] = target_length
    source = lengths.get("encoder", sequence_length) if len(stacks) > 1 else sequence_length
    other = {"encoder": source, "patches": sequence_length, "first": 1}
    total: Any = 0  # exact where all numbers are whole
    for spec in anatomy.language_model.values():
        if spec.is_matmul:
            tokens = spec.share * other.get(spec.reads, lengths[spec.stack or stacks[-1]])
            total += 2 * spec.size * tokens * (predicted_fraction if spec.unit == "head" else 1)
    for attention in anatomy.table.attention:
        if evaluate(attention.when, anatomy.names):
            width = evaluate(attention.heads, anatomy.sizes) * evaluate(attention.dim, anatomy.sizes)
            queries = lengths[attention.stack]
            keys = source if attention.keys == "encoder" else queries
            total += 4 * width * queries * keys * anatomy.layers[attention.stack]
    return float(total)
