"""Heads and units that a mask leaves, cut out layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from warmstart.anatomy import TensorSpec, anatomy_of_model
from warmstart.foundation.errors import UserError
from warmstart.shape.search.masks import Kept, MaskSpace

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def cut_layers(model: PreTrainedModel, space: MaskSpace, kept: Kept) -> PreTrainedModel:
    """Cut masked heads and units out of a model, in place, each layer to its own size.

    What is left computes what the mask did. It opens with this library alone where layers differ, or where
    the family has no such sizes (see [`PerLayer`][warmstart.checkpoint.forms.per_layer.PerLayer]).

    Args:
        model: A model that has lost the layers that the mask leaves out.
        space: The sub-networks of the whole model.
        kept: One of them.
    """
    from warmstart.checkpoint.forms.per_layer import resize

    own = dict(model.named_parameters())
    entries = {}
    for new, layer in enumerate(kept.layers):
        for name, count in zip(space.groups[layer], (kept.heads[layer], kept.units[layer])):
            if count < space.old.groups[name].size:
                entries[_at(name, layer, new)] = np.sort(space.order[name][:count])
    found = {}
    for spec in anatomy_of_model(model).tensors.values():
        dims = [(dim, entries[f.group]) for dim, f in enumerate(spec.factors) if f.group in entries]
        if spec.name in own and dims:
            found[spec.name] = _selected(spec, own[spec.name].detach(), dims)
    resize(model, found)
    return model


def pad_layers(model: PreTrainedModel) -> PreTrainedModel:
    """Give layers of different sizes the sizes of the configuration again, in place, with zeros.

    Heads and units that are missing come back as ones that compute nothing, so the function stays, and plain
    transformers opens the result. Its size is that of the whole model.

    Raises:
        UserError: A model whose layers have the sizes of its configuration.
    """
    from warmstart.checkpoint.forms.per_layer import narrowed, resize

    shapes, own = narrowed(model), dict(model.named_parameters())
    if not shapes:
        raise UserError("all layers have the sizes of the configuration", fix="it opens anywhere as it is")
    tensors = anatomy_of_model(model).tensors
    resize(model, {name: _padded(tensors[name], own[name].detach()) for name in shapes})
    return model


def _selected(spec: TensorSpec, tensor: torch.Tensor, dims: list[tuple[int, np.ndarray]]) -> torch.Tensor:
    import torch

    view, sizes = spec.view(tensor), [factor.size for factor in spec.factors]
    for dim, kept in dims:
        view, sizes[dim] = view.index_select(dim, torch.from_numpy(kept).to(view.device)), len(kept)
    return view.reshape(list(_flat(spec, sizes))).contiguous()


def _padded(spec: TensorSpec, tensor: torch.Tensor) -> torch.Tensor:
    """Zeros behind what is there, along the one factor of each dimension that is short."""
    sizes, place = [factor.size for factor in spec.factors], 0
    for dim, there in zip(spec.dims, tensor.shape):
        whole = int(np.prod([factor.size for factor in dim.factors]))
        if there != whole:
            short = _short(spec, place, len(dim.factors))
            sizes[short] = sizes[short] * there // whole
        place += len(dim.factors)
    view = tensor.reshape(sizes)
    made = view.new_zeros([factor.size for factor in spec.factors])
    made[tuple(slice(size) for size in sizes)] = view
    return made.reshape(spec.shape)


def _short(spec: TensorSpec, first: int, count: int) -> int:
    """The factor that masks cut: the first one of several entries that belongs to a layer's own axis."""
    several = [i for i in range(first, first + count) if spec.factors[i].size > 1]
    own = [i for i in several if "@" in (spec.factors[i].group or "")]
    return (own or several)[0]


def _flat(spec: TensorSpec, sizes: list[int]) -> Iterator[int]:
    """Stored dimensions of a view of these sizes."""
    left = iter(sizes)
    for dim in spec.dims:
        yield int(np.prod([next(left) for _ in dim.factors]))


def _at(group: str, old: int, new: int) -> str:
    """The name of a layer's axis group when the layer has moved."""
    stack, dot, place = group.rpartition(".")
    return f"{stack}.{new}" if dot and place == str(old) else group
