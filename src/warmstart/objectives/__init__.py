"""What a model is asked: causal and masked language modelling, span corruption.

    objective = objectives.get("masked").target(settings, tokenizer)
    batch = objective.collate(blocks, rng)          # blocks (B, L) -> inputs and labels
    nll, count = objective.loss(model, batch)       # summed nats (differentiable), number of targets

**Distributed training.** DDP and FSDP2 act in the `forward` of the module they wrap, so the loss must be
computed inside it. Wrap [`LossModule`][warmstart.objectives.LossModule], which holds model and objective, not
the model alone:

    module = DistributedDataParallel(LossModule(model, objective))  # or fully_shard of layers, then of this
    nll, count = module(batch)

For FSDP2 the root of the wrapping must be the loss module and the output matrix must belong to the root's
group (which it does when only the layers are wrapped one by one): the matrix is whole during the root's
`forward`. `nll` is a sum; back-propagate it divided by the number of targets of the whole step over all
processes.

The gradients of the output layer are made in the forward pass, so one batch can be back-propagated once
(`retain_graph` is of no use); gradient accumulation, autocast and checkpointing of layers work as usual.

**Beyond settings.** An objective may bring modules that learn beside the model and are dropped on save
(`Objective.companions`: extra heads), take parts that no settings can hold (`Objective.parts`: a teacher, a
table; `training.loop.make_objective` hands them over), change as the run goes on (`Objective.at`), and read
two cuts of one text (`Objective.parallel`).

A new objective is one file here with a class registered in `objectives`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warmstart.objectives._base import Objective, objectives

if TYPE_CHECKING:
    from warmstart.objectives._module import LossModule

__all__ = ["LossModule", "Objective", "objectives"]


def __getattr__(name: str) -> Any:
    if name == "LossModule":  # imports torch, which the registry must not
        from warmstart.objectives._module import LossModule

        return LossModule
    raise AttributeError(name)
