"""Training a growth: the large model computes, and what learns is the map that makes its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from warmstart.foundation.errors import UserError
from warmstart.objectives import Objective
from warmstart.shape.learned._growth import Growth

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class GrownWeights:
    """The weights of a large model as they follow from a growth.

    They are written into the storage of the model's own parameters, tensor by tensor, and made once more when
    their gradient arrives: beside the small weights and the growth there is one large model, and no gradient
    of all of it.

    Args:
        model: The large model.
        growth: The map.
    """

    def __init__(self, model: PreTrainedModel, growth: Growth) -> None:
        from warmstart.anatomy import anatomy_of_model

        self.growth = growth
        named = dict(model.named_parameters())
        specs = anatomy_of_model(model).match({name: tuple(p.shape) for name, p in named.items()})
        self._names = {name: spec.tied_to or spec.name for name, spec in specs.items()}
        made = set(growth.names)
        if lacking := [name for name, spec in self._names.items() if spec not in made]:
            raise UserError(f"the small model has nothing that {lacking[0]} could come from")
        self._parts = {name: growth.parts(name) for name in set(self._names.values())}

    @cached_property
    def flops(self) -> float:
        """Floating-point operations that a forward and a backward pass cost beside the model's own."""
        return self.growth.flops()

    def write(self, model: nn.Module) -> None:
        """Give a model the weights as they are now."""
        named = dict(model.named_parameters())
        with torch.no_grad():
            for name, source in self._names.items():
                named[name].copy_(self.growth.tensor(source))

    def differentiable(self, model: nn.Module) -> dict[str, Tensor]:
        """Weights by the model's own names, differentiable in the growth; they stand in the parameters."""
        named = dict(model.named_parameters())
        return {
            name: _Made.apply(self.growth, source, named[name].data, *self._parts[source])
            for name, source in self._names.items()
            if self._parts[source]
        }


class _Made(torch.autograd.Function):
    """One weight, written where the large model has it."""

    @staticmethod
    def forward(ctx: Any, growth: Growth, name: str, place: Tensor, *parts: Tensor) -> Tensor:
        ctx.growth, ctx.name, ctx.parts = growth, name, parts
        with torch.autocast(place.device.type, enabled=False):
            place.copy_(growth.tensor(name))
        return place.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad(), torch.autocast(grads[0].device.type, enabled=False):
            made = ctx.growth.tensor(ctx.name)
        return (None, None, None, *torch.autograd.grad(made, ctx.parts, grads[0]))


class _Asked(nn.Module):
    """A model and what it is asked in one `forward`, through which weights can be handed in."""

    def __init__(self, model: nn.Module, ask: Callable[[nn.Module], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.model, self._ask = model, ask

    def forward(self) -> tuple[Tensor, Tensor]:
        return self._ask(self.model)


class _Through(Objective):
    """Any objective, asked of the model that a growth makes; the growth learns beside the model's place."""

    weights: GrownWeights

    def companions(self, model: nn.Module) -> nn.Module:
        """The growth; of the model itself nothing learns."""
        if super().companions(model) is not None:
            raise UserError(
                "an objective with parts that learn beside the model cannot train a growth",
                where="objective",
                fix="use objective: auto",
            )
        model.requires_grad_(False)
        return self.weights.growth

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], companions: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """The objective's loss, whose gradient reaches the growth alone."""
        plain = super().loss
        if companions is None:
            return plain(model, batch)
        asked = _Asked(model, lambda inner: plain(inner, batch))
        handed = {f"model.{name}": weight for name, weight in self.weights.differentiable(model).items()}
        found = functional_call(asked, handed, ())
        return cast(tuple[Tensor, Tensor], found)


def through(objective: Objective, weights: GrownWeights) -> Objective:
    """The same objective, asked of the model that a growth makes.

    With it [`train`][warmstart.training.loop.train] trains the growth, and the model is where its weights are
    written; they are one step behind until `GrownWeights.write`.
    """
    kind = type(objective)
    made = copy.copy(objective)
    made.__class__ = type(kind.__name__, (_Through, kind), {"__doc__": kind.__doc__})
    cast(_Through, made).weights = weights
    return made
