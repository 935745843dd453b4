"""Model and objective as one module."""

from __future__ import annotations

from torch import Tensor, nn

from warmstart.objectives._base import Objective
from warmstart.objectives._penalty import Penalty


class LossModule(nn.Module):
    """Model and objective as one module, so that DDP, FSDP2 and `torch.compile` see the loss in `forward`.

    Args:
        model: A transformers model; its parameters are found under the prefix `model.`.
        objective: Gives the loss; parameters of its companions are found under `companions.`.
        penalty: What the model's routers are asked beside; nothing by default.
    """

    def __init__(self, model: nn.Module, objective: Objective, penalty: Penalty | None = None) -> None:
        super().__init__()
        self.model, self.objective, self.penalty = model, objective, penalty
        self.companions = objective.companions(model)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Summed negative log-likelihood in nats and number of targets of `batch`.

        With a penalty there is a third: the penalty times the number of targets, without its weight.
        """
        if self.penalty is None:
            return self._likelihood(batch)
        with self.penalty.watching():
            nll, targets = self._likelihood(batch)
        found = self.penalty.value(self.objective.reading(batch))
        return nll, targets, nll.new_zeros(()) if found is None else found.to(nll) * targets

    def _likelihood(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        if self.companions is None:
            return self.objective.loss(self.model, batch)
        return self.objective.loss(self.model, batch, self.companions)
