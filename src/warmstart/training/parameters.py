"""Which parameters decay, and the optimizer over them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import nn

from warmstart.training.optimizer import WHOLE, OptimizerContext, chosen_optimizer, refuse_shards

COMPANIONS = "companions."
"""Prefix of the parameters that learn beside the model and are no part of it."""
_IN_A_LAYER = re.compile(r"\.\d+\.")

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
    no_decay = _outside_the_body(model, named)
    trained = {name: p for name, p in named.items() if p.requires_grad}
    groups = (
        {"params": [p for n, p in trained.items() if n not in no_decay], "weight_decay": decay},
        {"params": [p for n, p in trained.items() if n in no_decay], "weight_decay": 0.0},
    )
    return [group for group in groups if group["params"]]


def _outside_the_body(model: PreTrainedModel, named: dict[str, nn.Parameter]) -> set[str]:
    """Names of vectors, embeddings, heads and companions."""
    rows = vocabulary_parameters(model)
    rows |= {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    outside = {name for name, p in model.named_parameters() if p.ndim < 2 or p in rows}
    return outside | {name for name in named if name.startswith(COMPANIONS)}


def layer_matrices(model: PreTrainedModel, named: dict[str, nn.Parameter]) -> frozenset[str]:
    """Names of the 2-D weights of attention and MLP: those of the body that lie in a numbered layer.

    Poolers and the dense parts of heads, which belong to no layer, are not among them.
    """
    outside = _outside_the_body(model, named)
    return frozenset(
        n for n, p in named.items() if p.ndim == 2 and n not in outside and _IN_A_LAYER.search(n)
    )


def factor_pairs(model: nn.Module, named: dict[str, nn.Parameter]) -> list[tuple[str, str]]:
    """Names of the factors (B, A) of each weight B A that learns.

    A factorised layer is a module with parameters `b` (m, r) and `a` (r, n).
    """
    found = []
    for place, module in model.named_modules():
        b, a = (module._parameters.get(name) for name in ("b", "a"))
        if b is None or a is None or b.ndim != 2 or a.ndim != 2 or b.shape[1] != a.shape[0]:
            continue
        names = tuple(f"{place}.{name}".removeprefix(".") for name in ("b", "a"))
        if all(name in named and named[name].requires_grad for name in names):
            found.append((names[0], names[1]))
    return found


def make_optimizer(
    model: PreTrainedModel, named: dict[str, nn.Parameter], settings: TrainSettings
) -> torch.optim.Optimizer:
    """The optimizer that `settings` name, over all of `named` that requires a gradient.

    Raises:
        UserError: It needs whole matrices, and they are sharded.
    """
    entry, options = chosen_optimizer(settings.optimizer)
    if WHOLE in entry.tags:
        refuse_shards(entry.name, named.values())
    context = OptimizerContext(
        groups=parameter_groups(model, named, settings.weight_decay),
        names={parameter: name for name, parameter in named.items()},
        matrices=layer_matrices(model, named),
        factors=factor_pairs(model, named),
        learning_rate=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        epsilon=settings.adam_epsilon,
        seed=settings.seed,
    )
    return entry.target(context, options)
