"""Skip routers: each token goes through a block of a pretrained decoder, or around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SkipSettings(Settings):
    """What share of the tokens goes through each block, and how routers learn which."""

    density: float = Field(default=0.5, gt=0, le=1)
    """P: share of the tokens that shall go through a block, on average over blocks and text."""
    weight: float = Field(default=0.1, ge=0)
    """Weight of the loss on that share in training; `router_aux_loss_coef` of a run replaces it."""
    anneal: float = Field(default=0.5, ge=0, le=1)
    """Share of a run over which the share that is asked for falls from 1 to the density; 0 asks at once."""
    temperature: float = Field(default=1.0, gt=0)
    """Of the noisy decisions in training: lower is nearer to the hard ones and learns by sharper steps."""
    bias: float = Field(default=3.0, ge=0)
    """Lead of going through at the start. At 3 a training step with its noise skips 5 % of the tokens."""
    router_std: float = Field(default=0.0, ge=0)
    """Standard deviation of the routers' weights. Above 0, a token may skip from the start."""
    routing: Literal["learned", "random"] = "learned"
    """`random` sends the share `density` through by a hash of the state and learns nothing: a baseline."""
    seed: int = Field(default=0, ge=0)
    """Seed of the routers' weights."""


def attach(model: PreTrainedModel, settings: SkipSettings, *, where: object = None) -> dict[str, Any]:
    """Give every block of a pre-norm decoder a skip router, in place (SkipLayer, arXiv 2311.15436).

    A router reads the state that enters its block and scores going around and going through; see
    [`SkipRouter`][warmstart.checkpoint.forms.skip.SkipRouter]. The paper trains from scratch with routers
    without biases; of a pretrained model half of the blocks would vanish at once. So here routers have a
    bias for going through and weights of 0: outside of training the model computes exactly what it did.

    A model that has routers keeps them, and what they are asked is set anew: to go on training without a
    second annealing, set `anneal` to 0.

    Args:
        model: A loaded decoder.
        settings: What routers are asked.
        where: The checkpoint, for messages.

    Returns:
        Numbers for the lineage.

    Raises:
        UserError: No pre-norm decoder.
    """
    import torch

    from warmstart.anatomy import anatomy_of_model
    from warmstart.checkpoint.forms.skip import OPTIONS, install, routers
    from warmstart.shape.draws import generator_of

    options = {name: getattr(settings, name) for name in OPTIONS}
    present = list(routers(model))
    for _, router in present:
        if router.options["routing"] != settings.routing:
            raise UserError(f"its routers are {router.options['routing']}", where=where, fix="begin without")
        router.options = dict(options)
    if present:
        return {"blocks with routers": len(present), "function": "unchanged"}
    anatomy = anatomy_of_model(model)
    stacks = list(anatomy.layers)
    causal = len(stacks) == 1 and type(model).__name__.endswith(("ForCausalLM", "LMHeadModel"))
    if not causal or anatomy.residual != "pre":
        raise UserError(
            f"blocks of a {type(model).__name__} cannot be skipped token by token",
            where=where,
            fix="take a decoder whose norms stand before its sublayers, such as Llama, GPT-2 or GPT-NeoX",
        )
    names = [anatomy.site("block", layer=layer) for layer in range(anatomy.layers[stacks[0]])]
    install(model, names, options)
    learned = settings.routing == "learned"
    with torch.no_grad():
        for name, router in routers(model):
            router.bias[1] = settings.bias
            if settings.router_std:
                draw = torch.randn(router.weight.shape, generator=generator_of(settings.seed, name))
                router.weight.copy_(draw * settings.router_std)
            router.requires_grad_(learned)
    exact = learned and not settings.router_std
    why = "routers may skip at once" if learned else "tokens skip at random"
    return {
        "blocks with routers": len(names),
        "density asked for": settings.density,
        "function": "unchanged" if exact or settings.density == 1 else f"changed: {why}",
    }


def detach(model: PreTrainedModel, *, anyway: bool = False, where: object = None) -> dict[str, Any]:
    """Take the skip routers out, in place: every token goes through every block.

    The function stays where no router can ever skip: weights of 0 and a bias for going through.

    Args:
        model: A model with routers.
        anyway: Also where routers may skip, which changes the function.
        where: The checkpoint, for messages.

    Raises:
        UserError: No routers, or some that may skip.
    """
    from warmstart.checkpoint.forms.skip import remove, routers

    found = list(routers(model))
    if not found:
        raise UserError("this checkpoint has no skip routers", where=where)

    def never(router: Any) -> bool:
        if router.options["routing"] == "random":
            return bool(router.options["density"] == 1)
        return not bool(router.weight.any()) and bool(router.bias[1] >= router.bias[0])

    may = [name for name, router in found if not never(router)]
    if may and not anyway:
        raise UserError(
            f"tokens may go around {len(may)} blocks, which no ordinary checkpoint can say",
            where=where,
            fix="train and use it as it is, or let every token through with --anyway",
        )
    remove(model)
    return {
        "routers taken out": len(found),
        "function": "changed: every token goes through every block" if may else "unchanged",
    }
