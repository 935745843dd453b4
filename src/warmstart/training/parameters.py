"""Which parameters learn, which decay, and the optimizer over them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from warmstart.training.settings import TrainSettings


@contextmanager
def only_trainable(model: PreTrainedModel, trainable: str | list[str]) -> Iterator[None]:
    """Set `requires_grad` as `TrainSettings.trainable` says; after the block it is what it was before."""
    before = {parameter: parameter.requires_grad for parameter in model.parameters()}
    chosen = _chosen(model, trainable)
    try:
        for parameter in before:
            parameter.requires_grad_(parameter in chosen)
        yield
    finally:
        for parameter, flag in before.items():
            parameter.requires_grad_(flag)


def _chosen(model: PreTrainedModel, trainable: str | list[str]) -> set[nn.Parameter]:
    if trainable == "all":
        return set(model.parameters())
    if trainable == "embeddings":
        return vocabulary_parameters(model)
    assert isinstance(trainable, list)
    try:
        patterns = [re.compile(pattern) for pattern in trainable]
    except re.error as error:
        raise UserError(f"trainable: {error.pattern!r} is not a regular expression ({error})") from None
    chosen = {p for name, p in model.named_parameters() if any(pattern.search(name) for pattern in patterns)}
    if not chosen:
        some = ", ".join(name for name, _ in list(model.named_parameters())[:3])
        raise UserError(
            f"trainable: no parameter name contains any of {trainable}", fix=f"names look like {some}, …"
        )
    return chosen


def vocabulary_parameters(model: PreTrainedModel) -> set[nn.Parameter]:
    """Input rows, output rows and output bias of `model`; tied ones once."""
    modules = (model.get_input_embeddings(), model.get_output_embeddings())
    return {p for module in modules if module is not None for p in module.parameters()}


def parameter_groups(model: PreTrainedModel, named: dict[str, nn.Parameter], decay: float) -> list[dict]:
    """Two groups for AdamW: body matrices with `decay`, everything else without.

    Args:
        model: The model in the Hugging Face layout, which knows what its embeddings are.
        named: Parameters to optimise under the names that they have in `model`.
        decay: Weight decay of the first group.
    """
    rows = vocabulary_parameters(model)
    rows |= {p for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    no_decay = {name for name, p in model.named_parameters() if p.ndim < 2 or p in rows}
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
