"""Which parameters decay, and the optimizer over them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

COMPANIONS = "companions."
"""Prefix of the parameters that learn beside the model and are no part of it."""

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from warmstart.training.settings import TrainSettings


def vocabulary_parameters(model: PreTrainedModel) -> set[nn.Parameter]:
    """Input rows, output rows and output bias of `model`; tied ones once."""
    modules = (model.get_input_embeddings(), model.get_output_embeddings())
    return {p for module in modules if module is not None for p in module.parameters()}


def parameter_groups(model: PreTrainedModel, named: dict[str, nn.Parameter], decay: float) -> list[dict]:
    """Two groups for AdamW: body matrices with `decay`, everything else (companions too) without.

    Args:
        model: The model in the Hugging Face layout, which knows what its embeddings are.
        named: Parameters to optimise under the names that they have in `model`; those of companions begin
            with `companions.`.
        decay: Weight decay of the first group.
    """
    rows = vocabulary_parameters(model)
    rows |= {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    no_decay = {name for name, p in model.named_parameters() if p.ndim < 2 or p in rows}
    no_decay |= {name for name in named if name.startswith(COMPANIONS)}
    trained = {name: p for name, p in named.items() if p.requires_grad}
    groups = (
        {"params": [p for n, p in trained.items() if n not in no_decay], "weight_decay": decay},
        {"params": [p for n, p in trained.items() if n in no_decay], "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]


def make_optimizer(
    model: PreTrainedModel, named: dict[str, nn.Parameter], settings: TrainSettings
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with torch's fused kernel: one pass over each."""
    return torch.optim.AdamW(
        parameter_groups(model, named, settings.weight_decay),
        lr=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        eps=settings.adam_epsilon,
        fused=True,
    )
