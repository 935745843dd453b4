"""What turns gradients into updates: a registry of optimizers, and what each is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from warmstart.foundation.errors import UserError
from warmstart.foundation.registry import Entry, Registry
from warmstart.foundation.settings import Settings

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

WHOLE = "whole-matrices"
"""Tag of optimizers whose update of a matrix depends on all of it, so that shards of it are not enough."""


@dataclass(frozen=True)
class OptimizerContext:
    """What an optimizer is made for.

    Attributes:
        groups: Tables of `params`, `weight_decay` and `lr_multiplier`, as torch takes them; together all that
            learns. A method keeps the factor in its own groups.
        names: Parameter -> its name in the model.
        matrices: Names of the 2-D weights of attention and MLP layers. A method for matrices leaves all
            others (embeddings, heads, norms, vectors, experts fused in 3-D) to AdamW.
        factors: Pairs of names of (B, A) whose product B A is one weight.
        learning_rate: Peak rate; the loop sets `lr` of each group before each step, times its factor.
        betas: Decay of the first and second moment.
        epsilon: Added to the root of the second moment.
        seed: Of the run.
    """

    groups: list[dict[str, Any]]
    names: Mapping[nn.Parameter, str]
    matrices: frozenset[str] = frozenset()
    factors: list[tuple[str, str]] = field(default_factory=list)
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-8
    seed: int = 0


OptimizerMaker = Callable[[OptimizerContext, Any], "Optimizer"]
"""`(context, settings) -> torch.optim.Optimizer`.

State that must survive a resume lies in `optimizer.state[parameter]` as tensors: the loop saves these and
nothing else (see `warmstart.training.state`)."""

optimizers: Registry[OptimizerMaker] = Registry("optimizer", "warmstart.training.optimizers")


def chosen_optimizer(value: str | Mapping[str, Any]) -> tuple[Entry[OptimizerMaker], Settings]:
    """The method that the setting `optimizer` names, and the method's own settings.

    Raises:
        UserError: An unknown name, or settings that the method does not have.
    """
    if not isinstance(value, str):
        name, own = str(value.get("name", "adamw")), [str(key) for key in value if key != "name"]
        if own and not optimizers.get(name).settings.model_fields:
            raise UserError(
                f"the optimizer {name!r} has no settings of its own, but {', '.join(own)} is given",
                fix="name the optimizer in the table, as in {name: galore, rank: 128}",
            )
    return optimizers.choose(value, default="adamw")


def refuse_shards(name: str, parameters: Iterable[nn.Parameter]) -> None:
    """Raise `UserError` where one of `parameters` is spread over processes."""
    if any(hasattr(parameter, "device_mesh") for parameter in parameters):
        raise UserError(
            f"the optimizer {name!r} needs whole matrices, and FSDP2 gives each process a part of them",
            fix="set distributed: ddp, or optimizer: adamw",
        )
