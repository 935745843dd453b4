"""Token losses of any transformers model without its full logits.

A model's `forward` runs body, head transform, output matrix and loss in one go. The output matrix is the last
`Linear` of nearly every family, so we let the model's own `forward` run with that one layer passing its input
through, and apply the matrix ourselves, only at positions with a target and chunk by chunk
([`linear_cross_entropy`][warmstart.evaluation.cross_entropy.linear_cross_entropy]). All before the matrix (the
dense layer of BERT and RoBERTa heads, T5's `d_model ** -0.5`) stays the model's own code, for every family.

What comes after the matrix (Cohere and Granite scale their logits, Gemma 2 squashes them) is found by one probe
on the first batch: the model's logits are compared with the matrix's output. A plain head and these two
transformations are handled exactly; any other head, or an output layer that is not a plain `Linear` (adapters,
quantised layers), falls back to the model's full logits.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.evaluation.cross_entropy import linear_cross_entropy


@dataclass(frozen=True)
class Head:
    """How a model turns the input of its output layer into logits: `softcap(scale * (h W^T + b))`.

    Attributes:
        linear: The output layer; None when only the model's own full logits are right.
        scale: Factor on the logits.
        softcap: `c` of `c tanh(x / c)`, None without.
    """

    linear: nn.Linear | None
    scale: float = 1.0
    softcap: float | None = None


_heads: weakref.WeakKeyDictionary[nn.Module, Head] = weakref.WeakKeyDictionary()


def token_losses(
    model: nn.Module, inputs: Mapping[str, Any], targets: Tensor, *, token_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Loss of `targets` given the model's logits at the same positions.

    Args:
        model: A transformers model with a language-modelling head, causal, masked or encoder-decoder; compiled
            models and models inside DDP or FSDP2 work too.
        inputs: Keyword arguments of its `forward`, without labels.
        targets: The token that position i must predict, (B, L) int64; -100 where there is none. A causal model
            takes the ids shifted left by one.
        token_weights: Factor of each token in the sum, (B, L).

    Returns:
        The (weighted) sum in nats (scalar, differentiable) and the loss of each of the N targets in row-major
        order, (N,), without gradient.
    """
    flat = targets.reshape(-1)
    where = (flat != -100).nonzero()[:, 0]
    goal = flat[where]
    weights = None if token_weights is None else token_weights.reshape(-1)[where]
    head = head_of(model, inputs)
    if head.linear is None:
        logits = model(**inputs, **_extra(model)).logits
        logits = logits.reshape(-1, logits.shape[-1])[where]
        nll = F.cross_entropy(torch.promote_types(logits.dtype, torch.float32).to_tensor(logits), goal)
    with _passed_through(head.linear):
        hidden = model(**inputs, **_extra(model)).logits
    return hidden, nll
