"""Which parameters decay, and the optimizer over them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from warmstart.foundation.errors import UserError
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


def parameter_groups(
    model: PreTrainedModel,
    named: dict[str, nn.Parameter],
    decay: float,
    multipliers: Mapping[str, float] | None = None,
) -> list[dict]:
    """Groups for AdamW: body matrices with `decay`, everything else (companions too) without.

    Both are split where parameters have a learning rate of their own; its factor is the `lr_multiplier` of
    the group.

    Args:
        model: The model in the Hugging Face layout, which knows what its embeddings are.
        named: Parameters to optimise under the names that they have in `model`; those of companions begin
            with `companions.`.
        decay: Weight decay of the first group.
        multipliers: Regular expression -> factor on the learning rate; the first that is found in a name.

    Raises:
        UserError: An expression is found in no name, or only in those for which another one holds.
    """
    no_decay = _outside_the_body(model, named)
    trained = {name: p for name, p in named.items() if p.requires_grad}
    factors = _factors(trained, multipliers or {})
    return [
        {"params": chosen, "weight_decay": 0.0 if bare else decay, "lr_multiplier": factor}
        for factor in dict.fromkeys([1.0, *factors.values()])
        for bare in (False, True)
        if (chosen := [p for n, p in trained.items() if (n in no_decay) == bare and factors[n] == factor])
    ]


def _factors(names: Iterable[str], multipliers: Mapping[str, float]) -> dict[str, float]:
    """The factor on the learning rate of each parameter."""
    found, used = {}, set()
    for name in names:
        pattern = next((p for p in multipliers if re.search(p, name)), None)
        found[name] = 1.0 if pattern is None else multipliers[pattern]
        used.add(pattern)
    if missing := [pattern for pattern in multipliers if pattern not in used]:
        raise UserError(
            f"{missing[0]!r} is found in no name of a parameter that learns, or in those alone for which an "
            "earlier expression holds",
            where="lr_multipliers",
            fix=f"names are such as {next(iter(found), '(none)')}",
        )
    return found


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
        groups=parameter_groups(model, named, settings.weight_decay, settings.lr_multipliers),
        names={parameter: name for name, parameter in named.items()},
        matrices=layer_matrices(model, named),
        factors=factor_pairs(model, named),
        learning_rate=settings.learning_rate,
        betas=(settings.adam_beta1, settings.adam_beta2),
        epsilon=settings.adam_epsilon,
        seed=settings.seed,
    )
    return entry.target(context, options)
