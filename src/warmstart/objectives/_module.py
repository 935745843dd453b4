"""Model and objective as one module."""

from __future__ import annotations

from torch import Tensor, nn

from warmstart.objectives._base import Objective


class LossModule(nn.Module):
    """Model and objective as one module, so that DDP, FSDP2 and `torch.compile` see the loss in `forward`.

    Args:
        model: A transformers model; its parameters are found under the prefix `model.`.
        objective: Gives the loss; parameters of its companions are found under `companions.`.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.companions = objective.companions(model)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed negative log-likelihood in nats and number of targets of `batch`."""
        if self.companions is None:
            return self.objective.loss(self.model, batch)
        return self.objective.loss(self.model, batch, self.companions)
