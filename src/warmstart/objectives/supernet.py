"""A causal model trained together with its sub-networks."""

from __future__ import annotations

from warmstart.objectives._base import objectives
from warmstart.objectives._supernet import SuperNet, SuperNetSettings
from warmstart.objectives.causal import Causal


@objectives.register(
    "supernet",
    settings=SuperNetSettings,
    title="Structural Pruning of Pre-trained Language Models via Neural Architecture Search",
    arxiv="2405.02267",
    tags=("causal",),
)
class CausalSuperNet(SuperNet, Causal):
    """Next-token prediction by the whole model and by sub-networks that share its weights.

    The strategies are those of the source, which fine-tunes classifiers for 5 epochs at a rate of 2e-5:
    `standard`, `random`, `random-linear`, `sandwich`, `kd` and `full`. Sandwich adds up the gradients of the
    whole model, two random sub-networks and the smallest one; `kd` adds to a sub-network's loss the soft
    cross-entropy with the whole model's logits, times T^2, at T = 10. For masked models `supernet` stands for
    `masked-supernet`. The step `train-supernet` says which sub-networks there are.
    """
