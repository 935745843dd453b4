"""What objectives share that train a model together with its sub-networks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.objectives._base import BatchShape
from warmstart.objectives._drawn import Drawn, refuse_recomputed

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase

Sizes = tuple[int, ...]


class SuperNetSettings(Settings):
    """Which sub-networks learn, and from whom."""

    strategy: Literal["standard", "random", "random-linear", "sandwich", "kd", "full"] = "full"
    """Per step: `standard`, the whole model; `random`, one sub-network; `random-linear`, one with a
    probability that rises from 0 to 1, else the whole; `sandwich`, the whole, random ones and the smallest;
    `kd`, the whole, and random ones that also learn from it; `full`, sandwich and kd."""
    random_samples: int = Field(default=2, ge=1)
    """Random sub-networks per step of `sandwich`, `kd` and `full`."""
    temperature: float = Field(default=10.0, gt=0)
    """T of what sub-networks learn from the whole model."""
    seed: int = Field(default=0, ge=0)
    """Draws the sub-networks of a step, together with the step's place in the budget."""


class Maskable(Protocol):
    """The sub-networks of a model, such as [`MaskSpace`][warmstart.shape.search.masks.MaskSpace]."""

    @property
    def full(self) -> Sizes:
        """The whole model."""

    @property
    def smallest(self) -> Sizes:
        """The smallest sub-network."""

    def draw(self, rng: np.random.Generator) -> Sizes:
        """A random one."""

    def masked(self, model: nn.Module, sizes: Sizes) -> AbstractContextManager[None]:
        """Inside the block the model computes this one."""


class SuperNet(Drawn):
    """A plain objective asked of the whole model and of sub-networks that share its weights.

    The losses of a step's networks are summed over the same batch, so that its gradient is the sum of
    theirs. With `kd` a sub-network's loss is `CE(text) + T^2 CE(p_T, q_T)` at each place, p being the whole
    model's distribution in the same step, without gradient, both at temperature T.

    Which networks a step has depends on the seed and on the step's place in the budget, so a run that is
    continued draws what it would have drawn, and all processes and passes of a step draw the same.

    Every network costs a forward and a backward pass of the whole model (masks save nothing), and all of a
    step's are held at a time: memory for activations is that of so many batches.

    Without sub-networks it is the plain objective; a run refuses to begin without them.

    Args:
        settings: Options of the objective.
        tokenizer: Tokenizer of the model.
        sub_networks: What can be masked.
    """

    settings: Any
    parts: ClassVar[tuple[str, ...]] = ("sub_networks",)
    asked = {"causal": "supernet", "masked": "masked-supernet"}

    def __init__(
        self,
        settings: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        sub_networks: Maskable | None = None,
    ) -> None:
        super().__init__(settings, tokenizer)
        self.sub_networks = sub_networks

    def shape(self, tokens: int) -> BatchShape:
        """Every network of a step is a pass over the whole model."""
        extra = {"standard": 1, "random": 1, "random-linear": 1, "kd": 1 + self.settings.random_samples}
        passes = extra.get(self.settings.strategy, 2 + self.settings.random_samples)
        return super().shape(tokens)._replace(passes=passes if self.sub_networks is not None else 1)

    def prepare(self, model: nn.Module, device: torch.device) -> None:
        """Make sure that there is something to mask.

        Raises:
            UserError: Nothing, or a model that computes its blocks again when masks are gone.
        """
        if self.sub_networks is None:
            raise UserError("there are no sub-networks to train", fix="train with the step train-supernet")
        refuse_recomputed(model, "blocks that are computed again do not see the masks")

    def networks(self) -> list[Sizes]:
        """The networks of the step at hand, the whole model first where it takes part."""
        assert self.sub_networks is not None
        options, space, rng = self.settings, self.sub_networks, self.draws()
        if options.strategy == "standard":
            return [space.full]
        if options.strategy in ("random", "random-linear"):
            whole = options.strategy == "random-linear" and rng.random() >= self.progress
            return [space.full if whole else space.draw(rng)]
        drawn = [space.full, *(space.draw(rng) for _ in range(options.random_samples))]
        return drawn if options.strategy == "kd" else [*drawn, space.smallest]

    def loss(
        self, model: nn.Module, batch: dict[str, Tensor], companions: nn.Module | None = None
    ) -> tuple[Tensor, Tensor]:
        """Summed losses of the step's networks, and the number of places of the batch."""
        if self.sub_networks is None:
            return super().loss(model, batch, companions)
        from warmstart.evaluation.head import unwrap

        inner = unwrap(model)
        goal = self.targets(batch["labels"]).reshape(-1)
        where = (goal != -100).nonzero()[:, 0]
        taught = self.settings.strategy in ("kd", "full")
        whole: Tensor | None = None
        total: Tensor | None = None
        for sizes in self.networks():
            with self.sub_networks.masked(inner, sizes):
                found, states = self._one(model, batch, goal[where], where, whole)
            if taught and whole is None:
                whole = states.detach()
            total = found if total is None else total + found
        assert total is not None
        return total, total.new_tensor(float(len(where)))

    def _one(
        self, model: nn.Module, batch: dict[str, Tensor], goal: Tensor, where: Tensor, whole: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The summed loss of one network, and what entered its head."""
        import torch
        from torch.nn import functional as F

        from warmstart.evaluation.head import head_inputs, head_logits
        from warmstart.objectives._divergence import soft_cross_entropy
        from warmstart.objectives._head_loss import head_loss

        head, states = head_inputs(model, self.inputs(model, batch), where)
        heat = self.settings.temperature

        def asked(logits: Tensor, token: Tensor, *rest: Tensor) -> Tensor:
            hard = F.cross_entropy(logits, token, reduction="sum")
            if not rest:
                return hard
            with torch.no_grad():
                expected = head_logits(head, rest[0])
            return hard + heat**2 * soft_cross_entropy(logits, expected, heat).sum()

        others = [goal] if whole is None else [goal, whole]
        return head_loss(head, states, asked, others), states
