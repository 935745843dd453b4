"""Models whose vocabulary rows are factorised: fewer parameters to train, and the way back to dense rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import nn

from warmstart.checkpoint.forms.factorised import FactorisedEmbedding, Parts, install, places
from warmstart.foundation.errors import UserError
from warmstart.vocabulary.factorise import Factors, energy_kept, factorise
from warmstart.vocabulary.surgery import as_rows, vocabulary_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def factorise_model(
    model: PreTrainedModel, rank: int, *, split: Literal["balanced", "raw"] = "balanced"
) -> dict[str, float]:
    """Give a loaded model factorised vocabulary rows, in place, as OFA (arXiv 2311.08849) does.

    Rows are split in a balanced way, see [`factorise`][warmstart.vocabulary.factorise.factorise]; an untied
    head is factorised by itself, a tied one shares both factors. With `rank` the width of the model the
    outputs are what they were, to rounding. V * d parameters become V * rank + rank * d.

    The model trains, generates and is saved like any other, and stays factorised; `transplant` then mixes
    its coordinates, which is the same as mixing rows. transformers has no such architecture: for other
    programs it is made dense by [`densify_model`][warmstart.vocabulary.factorised_model.densify_model].

    Args:
        model: Changed in place.
        rank: Width of the coordinates.
        split: Which factor holds the singular values; `raw` is that of the released code.

    Returns:
        Parameters before and after, and `energy_kept`: the share of the rows' squared length that the
        factors keep (the head's own as `energy_kept_head`).

    Raises:
        UserError: An impossible rank, an unknown architecture, a model that is factorised already, or one
            that does more in its embedding than to look up rows (Gemma scales them there).
    """
    if any(places(model)):
        raise UserError("the model is factorised already", fix="make it dense first, or take another rank")
    vocabulary_tensors(model)  # refuses an architecture that is not known
    before, kept = _count(model), []

    def split_rows(old: torch.Tensor) -> Parts:
        rows = as_rows(old)
        factors = factorise(rows, rank, split=split)
        kept.append(energy_kept(rows, factors))
        return _parameters(factors, old.dtype)

    install(model, split_rows)
    names = ("energy_kept", "energy_kept_head")
    numbers = {name: round(value, 6) for name, value in zip(names, kept)}
    return {"parameters_before": before, "parameters": _count(model), **numbers}


def densify_model(model: PreTrainedModel) -> PreTrainedModel:
    """Multiply the factors of a model, in place: an ordinary model again, with the same outputs.

    Raises:
        UserError: A model without factors.
    """
    found = list(places(model))
    if not found:
        raise UserError("the model has no factorised rows", fix="it opens anywhere as it is")
    dense: dict[int, nn.Parameter] = {}
    for parent, name, module in found:
        key = id(module.weight)
        if key not in dense:
            dense[key] = nn.Parameter((module.weight @ module.primitives).detach())
        size, width = dense[key].shape
        fresh: nn.Module
        with torch.device("meta"):
            if isinstance(module, FactorisedEmbedding):
                fresh = nn.Embedding(size, width, module.padding_idx)
            else:
                fresh = nn.Linear(width, size, bias=False)
                fresh.register_parameter("bias", module.bias)
        fresh.weight = dense[key]
        setattr(parent, name, fresh.train(module.training))
    return model


def input_rows(model: PreTrainedModel) -> np.ndarray:
    """The input rows `(V, d)` of a loaded model, multiplied out where they are factorised.

    Raises:
        UserError: An unknown architecture.
    """
    rows = vocabulary_tensors(model).rows
    embedding: Any = model.get_input_embeddings()
    if isinstance(embedding, FactorisedEmbedding):
        return as_rows(rows) @ as_rows(embedding.primitives)
    return as_rows(rows)


def _parameters(factors: Factors, dtype: torch.dtype) -> Parts:
    left, right = torch.from_numpy(factors.coordinates), torch.from_numpy(factors.primitives)
    return nn.Parameter(left.to(dtype)), nn.Parameter(right.to(dtype))


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
