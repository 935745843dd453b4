"""Blocks with a skip router: each token goes through the block or around it."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from warmstart.checkpoint.forms import forms
from warmstart.checkpoint.forms._gathered import can_gather, gathered

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "skip_router"
OPTIONS = ("density", "weight", "anneal", "temperature", "routing")


class SkipRouter(nn.Linear):
    """Two scores of a token from the state that enters its block: for going around it, and for going through.

    While it trains it adds Gumbel noise: a token goes through where `sigmoid((s_1 - s_0 + noise) / T)` is
    above a half, with logistic noise, the difference of two Gumbel draws. Otherwise the higher score wins,
    and going through wins a draw.

    Args:
        width: Of the states.
        options: `density`, `weight` and `anneal` of the loss on the share of tokens that go through (see
            [`SkipRate`][warmstart.objectives._skip_rate.SkipRate]), the `temperature` T, and `routing`:
            `learned`, or `random`, which sends that share of the tokens through by a hash of their state.
    """

    def __init__(self, width: int, options: Mapping[str, Any]) -> None:
        super().__init__(width, 2, device="meta")
        self.weight = nn.Parameter(torch.zeros(2, width))
        self.bias = nn.Parameter(torch.zeros(2))
        self.options = {key: options[key] for key in OPTIONS}
        self.gathers = True

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Which tokens of states `(B, L, d)` go through, and the soft decisions, both `(B, L)`."""
        with torch.autocast(x.device.type, enabled=False):
            if self.options["routing"] == "random":
                share = (x.detach().double().sum(-1) * 1e4).frac().abs()
                through = share < self.options["density"]
                return through, through.to(x.dtype)
            scores = nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias)
            lead = scores[..., 1] - scores[..., 0]
            if self.training:
                even = torch.rand_like(lead).clamp(1e-6, 1 - 1e-6)
                lead = (lead + even.logit()) / self.options["temperature"]
            return lead >= 0, lead.sigmoid()


class Skipping:
    """What a block with a router does, before its own class in the order of inheritance.

    In training both ways are computed, `y = z Block(x) + (1 - z) x` with z the hard decision forward and the
    soft one backward. Otherwise only what is needed: a token that goes around still gives its key and value
    to later ones, from the state that enters the block, and is spared query, output and feed-forward part.
    """

    if TYPE_CHECKING:
        skip_router: SkipRouter
        training: bool

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """States `(B, L, d)` after the block, or around it."""
        inner, block = super(), self  # type: Any, Any
        x, router = hidden_states, self.skip_router
        through, soft = router(x)
        if not router.training and router.gathers and can_gather(x, args, kwargs):
            return gathered(block, inner.forward, x, through, kwargs)
        found: Tensor = inner.forward(x, *args, **kwargs)
        y = torch.where(through[..., None], found, x)
        if not router.training:
            return y
        return y + (soft - soft.detach()).to(x.dtype)[..., None] * (found - x)


@functools.cache
def skipping(kind: type[nn.Module]) -> type[nn.Module]:
    """The class of blocks of class `kind` with a router; it has the same name."""
    return type(kind.__name__, (Skipping, kind), {"__module__": kind.__module__})


def install(model: PreTrainedModel, blocks: list[str], options: Mapping[str, Any]) -> None:
    """Give blocks routers, in place, all of which send every token through."""
    width = model.get_input_embeddings().weight.shape[1]  # type: ignore[index]
    for name in blocks:
        block: Any = model.get_submodule(name)
        router = SkipRouter(int(width), options)
        like = next(block.parameters())
        block.add_module(NAME, router.to(device=like.device, dtype=like.dtype).train(block.training))
        kind: Any = type(block)
        block.__class__ = skipping(kind)


def remove(model: PreTrainedModel) -> None:
    """Take the routers out of all blocks, in place."""
    for block in [module for module in model.modules() if isinstance(module, Skipping)]:
        delattr(block, NAME)
        block.__class__ = next(kind for kind in type(block).__mro__[1:] if kind is not Skipping)


def routers(model: nn.Module) -> Iterator[tuple[str, SkipRouter]]:
    """Name of the block and its router, in order."""
    for name, module in model.named_modules():
        if isinstance(module, Skipping):
            yield name, module.skip_router


class Skip:
    """Decoders whose blocks have a skip router, as SkipLayer has them.

    The class of transformers stays that of the dense model, with a router in each block. The note holds
    `blocks`, the names of those that have one, and what their routers are asked.
    """

    def describe(self, model: PreTrainedModel) -> dict[str, Any] | None:
        """Blocks and options."""
        found = dict(routers(model))
        if not found:
            return None
        return {"blocks": list(found), **next(iter(found.values())).options}

    def prepare(self, model: PreTrainedModel, note: Mapping[str, Any]) -> None:
        """Add routers whose values are open."""
        install(model, list(note["blocks"]), note)

    def plain_shapes(self, model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
        """The state's shapes without routers."""
        state = model.state_dict().items()
        return {name: tuple(tensor.shape) for name, tensor in state if f".{NAME}." not in name}


forms.register("skip", title="Learning to Skip for Language Modeling", arxiv="2311.15436")(Skip())
