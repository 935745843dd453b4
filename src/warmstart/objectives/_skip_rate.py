"""The loss on the share of tokens that go through blocks with a skip router."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from warmstart.checkpoint.forms.skip import routers
from warmstart.objectives._penalty import Penalty


class SkipRate(Penalty):
    """Asks skip routers to send a certain share of the tokens through their blocks (arXiv 2311.15436).

        sum over blocks of (share of the tokens of the pass that go through - P)^2

    with the hard decisions forward and the soft ones backward. P falls in a straight line from 1 to the
    density in the note of the checkpoint, over the share `anneal` of the run, so that a pretrained model
    does not lose part of its blocks at once.

    Args:
        model: A model with skip routers.
        weight: Factor in the training loss.
    """

    name: ClassVar[str] = "skip_loss"

    def __init__(self, model: nn.Module, weight: float) -> None:
        found = dict(routers(model))
        self.weight = weight
        options = next(iter(found.values())).options
        self._density, self._anneal = float(options["density"]), float(options["anneal"])
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._handles = [router.register_forward_hook(self._see) for router in found.values()]
        self.at(0.0)

    @classmethod
    def of(cls, model: nn.Module, weight: float | None) -> SkipRate | None:
        """The penalty of a model with learned skip routers, by default with the weight in its note."""
        found = [router for _, router in routers(model)]
        if not found or found[0].options["routing"] != "learned":
            return None
        factor = found[0].options["weight"] if weight is None else weight
        return cls(model, float(factor)) if factor else None

    def at(self, progress: float) -> None:
        """Set P for a step."""
        done = 1.0 if self._anneal <= 0 else min(1.0, progress / self._anneal)
        self.target = 1.0 - (1.0 - self._density) * done

    def _see(self, module: nn.Module, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        if self.watched and torch.is_grad_enabled():
            self._seen.append(output)

    def begin(self) -> None:
        """Forget what was seen."""
        self._seen = []

    def value(self, reading: Tensor | None) -> Tensor | None:
        """The loss of the passes that were seen."""
        seen, self._seen = self._seen, []
        total = None
        for through, soft in seen:
            z = (through.to(soft) - soft).detach() + soft
            counts = torch.ones_like(z) if reading is None else reading.to(z)
            gap = (z * counts).sum() / counts.sum().clamp(min=1) - self.target
            total = gap.square() if total is None else total + gap.square()
        return total

    def close(self) -> None:
        """Stop watching the routers."""
        for handle in self._handles:
            handle.remove()
