"""The load-balancing loss of mixtures of experts."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.evaluation.routers import load_balance, routers, watch
from warmstart.objectives._penalty import Penalty


class RouterBalance(Penalty):
    """Asks the routers of a mixture to use its experts alike (arXiv 2101.03961).

    See [`load_balance`][warmstart.evaluation.routers.load_balance] for the formula. With all text in one
    forward pass the training loss is that of transformers with `output_router_logits`, but no logits of
    words are held for it. Over several passes and processes the balance is asked of each on its own, as
    usual: how even a step is could only be known after a first look at all of its text.

    Args:
        model: The mixture.
        weight: Factor in the training loss.
    """

    name: ClassVar[str] = "router_loss"

    def __init__(self, model: nn.Module, weight: float) -> None:
        self.weight = weight
        self._top = int(model.config.num_experts_per_tok)  # type: ignore[union-attr, arg-type]
        self._scores: list[Tensor] = []
        self._handles = watch(model, self._see)

    @classmethod
    def of(cls, model: nn.Module, weight: float | None) -> RouterBalance | None:
        """The balance of a mixture, by default with its configuration's `router_aux_loss_coef`."""
        config = getattr(model, "config", None)
        own = getattr(config, "router_aux_loss_coef", None)
        factor = own if weight is None else weight
        if not factor or getattr(config, "is_encoder_decoder", False) or not routers(model):
            return None
        return cls(model, float(factor))

    def _see(self, name: str, scores: Tensor) -> None:
        if self.watched and torch.is_grad_enabled():
            self._scores.append(scores)

    def begin(self) -> None:
        """Forget what was seen."""
        self._scores = []

    def value(self, reading: Tensor | None) -> Tensor | None:
        """The load-balancing loss of the passes that were seen."""
        scores, self._scores = self._scores, []
        if not scores:
            return None
        flat = None if reading is None else reading.flatten()
        return load_balance(scores, self._top, flat)

    def close(self) -> None:
        """Stop watching the routers."""
        for handle in self._handles:
            handle.remove()
