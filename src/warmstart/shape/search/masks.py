"""Sub-networks that a model computes without being cut: heads and units behind a mask, layers left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from warmstart.anatomy import Anatomy, TensorSpec
from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.shape.consumers import as_consumer
from warmstart.shape.importance import Scores
from warmstart.shape.search.space import Choices, Range, Sizes, values_of

if TYPE_CHECKING:
    from torch import Tensor, nn


class MaskSettings(Settings):
    """Which sub-networks there are."""

    granularity: Literal["small", "medium", "layer"] = "small"
    """`small`: one number of layers, of heads and of units; `medium`: a number of heads and of units for each
    layer; `layer`: each layer is there or not."""
    layers: list[int] | Range = Range(min=1)
    """How many layers, the first ones; `small` only."""
    heads: list[int] | Range = Range(min=1)
    """How many heads; where several query heads share keys and values, how many such groups."""
    units: list[int] | Range | None = None
    """How many feed-forward units; the eighths of the model's own by default."""
    importance: str | dict[str, Any] = Field(default="first")
    """Which heads and units come first: `first` takes them as they stand, as training with masks needs it;
    `magnitude`, `activation`, `taylor` or `random` rank those of an ordinary model."""


class Kept(NamedTuple):
    """A sub-network: per layer of the model how many heads and units it has, and which layers it has."""

    heads: tuple[int, ...]
    units: tuple[int, ...]
    layers: tuple[int, ...]


class MaskSpace(Choices):
    """All sub-networks that masks can make of a model with one stack of layers.

    Found through the anatomy: the weights of the sites `attention_output` and `mlp_output` say where heads
    and units enter.

    Args:
        old: The model.
        settings: Which sub-networks.
        names: Canonical names of what the model stores; all tensors of its language model by default.
        scores: Importance of heads and units by axis group; they count in their order by default.

    Raises:
        UserError: Several stacks, experts, or sizes that the model does not reach.
    """

    admits: Callable[[Kept], bool] | None = None
    """Sub-networks that it refuses count as none."""

    def __init__(
        self,
        old: Anatomy,
        settings: MaskSettings,
        *,
        names: Collection[str] | None = None,
        scores: Scores | None = None,
    ) -> None:
        self.old, self.settings, self._known = old, settings, dict[Kept, bool]()
        if len(old.layers) != 1 or old.table.two_layouts:
            raise UserError(
                f"a {old.model_type} has no masks here",
                where="masks",
                fix="take a model of one stack of layers without experts",
            )
        ((self.stack, self.depth),) = old.layers.items()
        self.outputs = [self._outputs(layer) for layer in range(self.depth)]
        self.groups = [tuple(_group(spec) for spec in pair) for pair in self.outputs]
        self._held = set(old.language_model if names is None else names)
        heads, units = (old.groups[name].size for name in self.groups[0])
        choice = settings.units or sorted({max(1, units * i // 8) for i in range(1, 9)})
        several = values_of("heads", settings.heads, heads), values_of("units", choice, units)
        if settings.granularity == "small":
            self.keys = ("layers", "heads", "units")
            self.values = (values_of("layers", settings.layers, self.depth), *several)
            self.full = (self.depth, heads, units)
        elif settings.granularity == "medium":
            self.keys = tuple(f"{key}.{i}" for i in range(self.depth) for key in ("heads", "units"))
            self.values, self.full = several * self.depth, (heads, units) * self.depth
        else:
            self.keys = tuple(f"layer.{i}" for i in range(self.depth))
            self.values, self.full = ((0, 1),) * self.depth, (1,) * self.depth
        self.order: Mapping[str, np.ndarray] = {
            name: np.argsort(-scores[name], kind="stable") if scores else np.arange(old.groups[name].size)
            for pair in self.groups
            for name in pair
        }

    def masked(self, model: nn.Module, sizes: Sizes) -> AbstractContextManager[None]:
        """See [`masked`][warmstart.shape.search.masks.masked]."""
        return masked(model, self, sizes)

    @property
    def smallest(self) -> Sizes:
        """The sub-network with the fewest parameters; of single layers the first is left."""
        least = tuple(values[0] for values in self.values)
        return (1, *least[1:]) if self.settings.granularity == "layer" else least

    def draw(self, rng: np.random.Generator) -> Sizes:
        """A sub-network, each key uniform; never one without any layer."""
        while not any(found := super().draw(rng)):
            continue
        return found

    def kept(self, sizes: Sizes) -> Kept:
        """What a sub-network has."""
        heads, units = (self.old.groups[name].size for name in self.groups[0])
        if self.settings.granularity == "small":
            count, heads, units = sizes
            return Kept((heads,) * self.depth, (units,) * self.depth, tuple(range(count)))
        if self.settings.granularity == "medium":
            return Kept(sizes[::2], sizes[1::2], tuple(range(self.depth)))
        chosen = tuple(i for i, there in enumerate(sizes) if there)
        return Kept((heads,) * self.depth, (units,) * self.depth, chosen)

    def parameters(self, sizes: Sizes) -> int | None:
        """What a checkpoint stores that holds only what the masks let through; None without any layer.

        Counted from the shapes that it would have: what belongs to a head or unit goes with it, also its
        part of the output projection. Where the family cannot have such a checkpoint (fewer heads of the
        same size in a BERT) the number is virtual.
        """
        kept = self.kept(sizes)
        if not kept.layers or not self._admitted(kept):
            return None
        return sum(self._size(self.old.tensors[name], kept) for name in self._held)

    def _admitted(self, kept: Kept) -> bool:
        if kept not in self._known:
            self._known[kept] = self.admits is None or self.admits(kept)
        return self._known[kept]

    def _size(self, spec: TensorSpec, kept: Kept) -> int:
        if spec.tied_to is not None or (spec.layer is not None and spec.layer not in kept.layers):
            return 0
        if spec.layer is None:
            return spec.size
        size = spec.size
        for name, count in zip(self.groups[spec.layer], (kept.heads[spec.layer], kept.units[spec.layer])):
            if any(factor.group == name for factor in spec.factors):
                size = size * count // self.old.groups[name].size
        return size

    def dropped(self, kept: Kept) -> Iterator[tuple[str, np.ndarray]]:
        """Axis groups of layers that stay, and their entries that do not."""
        for layer in kept.layers:
            for name, count in zip(self.groups[layer], (kept.heads[layer], kept.units[layer])):
                if len(gone := self.order[name][count:]):
                    yield name, gone

    def _outputs(self, layer: int) -> tuple[TensorSpec, ...]:
        found = []
        for kind in ("attention_output", "mlp_output"):
            name = f"{self.old.site(kind, stack=self.stack, layer=layer)}.weight"
            if name not in self.old.tensors:
                raise UserError(
                    f"layer {layer} has no plain MLP", where="masks", fix="take a model without experts"
                )
            found.append(self.old.tensors[name])
        return tuple(found)


@contextmanager
def masked(model: nn.Module, space: MaskSpace, sizes: Sizes) -> Iterator[None]:
    """Inside the block a model computes one of its sub-networks.

    What enters the output projection of an attention or an MLP is multiplied by zero where a head or unit is
    masked, so their weights get no gradient either. A layer that is left out returns its input: it is gone,
    with its norms, also in a post-norm model (plm_pruning skips the LayerNorm of a dropped sub-layer
    likewise). It is computed all the same.

    Args:
        model: The transformers model itself, not a wrapper around it.
        space: Its sub-networks.
        sizes: One of them.
    """
    import torch

    kept = space.kept(sizes)
    gone = dict(space.dropped(kept))
    with ExitStack() as undo:
        for layer in range(space.depth):
            if layer not in kept.layers:
                block = model.get_submodule(space.old.site("block", stack=space.stack, layer=layer))
                undo.callback(block.register_forward_hook(_passed, with_kwargs=True).remove)
                continue
            for spec, name in zip(space.outputs[layer], space.groups[layer]):
                if name not in gone:
                    continue
                consumer = as_consumer(spec, model)
                assert consumer is not None
                mask = torch.from_numpy(_inputs(spec, name, gone[name]))
                module = model.get_submodule(consumer.module)
                there = mask.to(next(module.parameters()).device)
                undo.callback(module.register_forward_pre_hook(partial(_hidden, there)).remove)
        yield


def _passed(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    given = args[0] if args else kwargs["hidden_states"]
    return (given, *output[1:]) if isinstance(output, tuple) else given


def _hidden(mask: Tensor, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    return (args[0] * mask.to(args[0].dtype), *args[1:])


def _inputs(spec: TensorSpec, group: str, gone: np.ndarray) -> np.ndarray:
    """1 for the inputs of a weight that stay and 0 for those of masked entries, `(n,)`."""
    factors = next(dim for dim in spec.dims if dim.role == "i").factors
    found = np.ones([factor.size for factor in factors], dtype=np.float32)
    place = next(i for i, factor in enumerate(factors) if factor.group == group)
    np.moveaxis(found, place, 0)[gone] = 0
    return found.reshape(-1)


def _group(spec: TensorSpec) -> str:
    """The axis group of what is masked together: the first that has several entries."""
    factors = next(dim for dim in spec.dims if dim.role == "i").factors
    chosen = next((factor for factor in factors if factor.size > 1), factors[0])
    return str(chosen.group)
