"""Layers of different sizes: parameters that are narrower than the configuration says, each as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from warmstart.checkpoint.forms import forms

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SHAPES = "_per_layer_shapes"


def resize(model: PreTrainedModel, values: Mapping[str, torch.Tensor]) -> None:
    """Put parameters of other shapes in the place of a model's own, in place.

    Linear maps are told their new sizes. That is all an attention needs whose class has its heads from the
    width of its projections, as those of transformers 5 do; of GPT-2 the place where queries, keys and values
    part moves along.

    Args:
        model: As its class makes it, or resized before.
        values: Parameter name to its values; names that have the shape of the class again are forgotten.
    """
    known: dict[str, dict[str, list[int]]] = dict(getattr(model, _SHAPES, {}))
    for name, value in values.items():
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        old = getattr(module, leaf)
        was = known[name]["was"] if name in known else list(old.shape)
        setattr(module, leaf, nn.Parameter(value, requires_grad=old.requires_grad))
        known[name] = {"is": list(value.shape), "was": was}
        if leaf == "weight":
            _tell(module)
            _part(model.get_submodule(owner.rpartition(".")[0]), module)
    setattr(model, _SHAPES, {name: both for name, both in known.items() if both["is"] != both["was"]})


def narrowed(model: nn.Module) -> dict[str, dict[str, list[int]]]:
    """Parameter name to its shape (`is`) and that of its class (`was`), of all that are narrower."""
    return dict(getattr(model, _SHAPES, {}))


def _tell(module: nn.Module) -> None:
    """Let a linear map know its sizes."""
    sizes: Sequence[int] = module.weight.shape  # type: ignore[assignment]
    if isinstance(module, Conv1D):
        module.nx, module.nf = sizes
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = sizes


def _part(parent: nn.Module, module: nn.Module) -> None:
    """Let GPT-2's attention know how wide its queries are."""
    if getattr(parent, "c_attn", None) is module and hasattr(parent, "split_size"):
        parent.split_size = module.nf // 3


class PerLayer:
    """Models whose layers differ in heads and feed-forward units, as pruned and searched ones do.

    The class of transformers stays, and the configuration has the sizes of the whole model. The note holds
    `shapes`: for each narrower parameter its shape, and that of its class.
    """

    def describe(self, model: PreTrainedModel) -> dict[str, Any] | None:
        """The shapes."""
        found = narrowed(model)
        return {"shapes": found} if found else None

    def prepare(self, model: PreTrainedModel, note: Mapping[str, Any]) -> None:
        """Give parameters their narrower shapes; their values are open."""
        old = dict(model.named_parameters(remove_duplicate=False))
        resize(model, {name: old[name].new_zeros(both["is"]) for name, both in note["shapes"].items()})

    def plain_shapes(self, model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
        """The state's shapes as the class has them."""
        was = {name: tuple(both["was"]) for name, both in narrowed(model).items()}
        return {name: was.get(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()}


forms.register(
    "per-layer",
    title="Structural Pruning of Pre-trained Language Models via Neural Architecture Search",
    arxiv="2405.02267",
)(PerLayer())
