"""Hidden states of a model, and what its head makes of them, at chosen places only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.evaluation.cross_entropy import linear_cross_entropy
from warmstart.evaluation.head import Head, head_logits, head_of, unwrap
from warmstart.foundation.errors import UserError


@torch.compiler.disable(recursive=False)
def hidden_states(
    model: nn.Module, ids: Tensor, layers: Sequence[int] = (-1,), *, dropout: bool = False, **inputs: Tensor
) -> list[Tensor]:
    """Hidden states (B, L, H) of a causal model, one per entry of `layers`.

    Args:
        model: A causal language model.
        ids: Token ids (B, L), padded at the end.
        layers: As in transformers: 0 is the embedding, -1 the last layer's output *after* the final norm.
        dropout: Whether a model in training drops out; else it is read in evaluation mode.
        **inputs: Further arguments of its `forward`, such as `position_ids`.

    Raises:
        UserError: There is no such layer.
    """
    body = unwrap(model).base_model
    options = {"input_ids": ids, **inputs, "use_cache": False, "return_dict": True}
    with nullcontext() if dropout else evaluating(body):
        if all(layer == -1 for layer in layers):
            return [body(**options).last_hidden_state] * len(layers)
        states = body(**options, output_hidden_states=True).hidden_states
    for layer in layers:
        if not -len(states) <= layer < len(states):
            raise UserError(
                f"there is no hidden state {layer}, the model has {len(states)} of them",
                fix=f"choose a layer from 0 to {len(states) - 1}, or -1 for the last",
            )
    return [states[layer] for layer in layers]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, whatever the mode of the single modules was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def plain_head(model: nn.Module, ids: Tensor) -> Head:
    """The model's head, which must be one matrix (see [`head_of`][warmstart.evaluation.head.head_of])."""
    head = head_of(model, {"input_ids": ids[:, : min(2, ids.shape[1])]})
    if head.linear is None:
        raise UserError(
            f"the output layer of {type(unwrap(model)).__name__} is not a plain matrix, which this objective "
            "needs",
            fix="train the model with the objective causal",
        )
    return head


def logits(head: Head, hidden: Tensor) -> Tensor:
    """Logits (N, V) of hidden states (N, H), in float32 (float64 stays)."""
    assert head.linear is not None
    return head_logits(head, _entering(head.linear, hidden))


def next_token_nll(
    head: Head, hidden: Tensor, targets: Tensor, weights: nn.Linear | None = None
) -> tuple[Tensor, int]:
    """Summed negative log-likelihood of `targets` (B, L; -100 for none) given hidden states, their number.

    Args:
        head: How logits come about.
        hidden: (B, L, H).
        targets: Token that each place must predict.
        weights: Another output layer of the same kind; the head's own by default.
    """
    layer = weights if weights is not None else head.linear
    assert layer is not None
    flat = targets.reshape(-1)
    where = (flat != -100).nonzero()[:, 0]
    states = _entering(layer, hidden.reshape(-1, hidden.shape[-1]).index_select(0, where))
    weight, bias = _matrix(layer)
    if head.scale != 1.0:
        states, bias = states * head.scale, None if bias is None else bias * head.scale
    total, _ = linear_cross_entropy(states, weight, bias, flat[where], softcap=head.softcap)
    return total, len(where)


def _entering(layer: nn.Linear, states: Tensor) -> Tensor:
    """States as the layer's matrix takes them: before factorised rows they pass through the primitives."""
    primitives = getattr(layer, "primitives", None)
    return states if primitives is None else F.linear(states, _whole(primitives))


def _matrix(layer: nn.Linear) -> tuple[Tensor, Tensor | None]:
    return _whole(layer.weight), None if layer.bias is None else _whole(layer.bias)


def _whole(parameter: Tensor) -> Tensor:
    """A parameter that FSDP2 has sharded on its own, gathered; others as they are."""
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
