"""Restarts: AdamW whose moments are cleared from time to time, with factorised weights split anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.training.optimizer import OptimizerContext, optimizers, refuse_shards
from warmstart.training.optimizers.adamw import adamw

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


class RestartSettings(Settings):
    """Options of `restarts`."""

    every: int = Field(default=200, ge=1)
    """Updates between two restarts."""
    dip: float = Field(default=0.001, gt=0, le=1)
    """Share of the learning rate in the first update after a restart."""
    recovery: int = Field(default=10, ge=0)
    """Updates until the rate, rising in a straight line, is whole again; 0 goes without a dip."""
    rebalance: bool = True
    """Whether factors of weights are split anew, too."""


@optimizers.register(
    "restarts",
    settings=RestartSettings,
    title="Scalable Parameter and Memory Efficient Pretraining for LLM: Recent Algorithmic Advances and "
    "Benchmarking",
    arxiv="2505.22922",
)
def restarts(context: OptimizerContext, settings: RestartSettings) -> Optimizer:
    """AdamW that restarts after every `every` updates, made for weights that are a product W = B A.

    A restart (1) splits each such weight anew by its singular value decomposition, with the same product
    (see [`rebalance`][warmstart.training.optimizers.restarts.rebalance]), (2) clears both moments of all
    parameters and the count that corrects their bias, and (3) lets the learning rate dip to `dip` of what the
    schedule says and recover over `recovery` updates; the log shows the schedule's rate. Restarts happen
    right after an update, so that the next gradient is that of the new factors.

    Factors are found by their form: a module with parameters `b` (m, r) and `a` (r, n). Without any, moments
    and rate alone restart.

    Keeps what AdamW keeps, and one count.

    Differences from the released code: there factors restart with sparse-plus-low-rank weights only, and
    after 65,000 updates unless told otherwise; the optimizer is built anew.
    """
    optimizer = adamw(context, Settings())
    places = {name: parameter for parameter, name in context.names.items()}
    pairs = [(places[b], places[a]) for b, a in context.factors if settings.rebalance]
    refuse_shards("restarts", (factor for pair in pairs for factor in pair))
    restarting = _Restarting(settings, pairs)
    optimizer.register_step_pre_hook(restarting.before)
    optimizer.register_step_post_hook(restarting.after)
    return optimizer


class _Restarting:
    """What happens before and after each step of the optimizer.

    The number of updates lies in the optimizer's state, in `updates` of the first parameter that has one, so
    that it is saved and comes back with it.
    """

    def __init__(self, settings: RestartSettings, pairs: list[tuple[nn.Parameter, nn.Parameter]]) -> None:
        self.settings, self.pairs = settings, pairs
        self._rates: list[float] = []

    def before(self, optimizer: Optimizer, *_: Any) -> None:
        """Dip."""
        factor = self._factor(_updates(optimizer))
        self._rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor

    def _factor(self, updates: int) -> float:
        """Factor on the rate of the update after `updates` ones."""
        since, dip = updates % self.settings.every, self.settings.dip
        if updates < self.settings.every or since >= self.settings.recovery:
            return 1.0
        return dip + (1 - dip) * since / self.settings.recovery

    def after(self, optimizer: Optimizer, *_: Any) -> None:
        """Count, and restart when it is time."""
        import torch

        for group, rate in zip(optimizer.param_groups, self._rates):
            group["lr"] = rate
        updates = _updates(optimizer) + 1
        if updates % self.settings.every == 0:
            for state in optimizer.state.values():
                for value in state.values():
                    value.zero_()
            for b, a in self.pairs:
                with torch.no_grad():
                    for factor, value in zip((b, a), rebalance(b, a)):
                        factor.copy_(value)
        for state in optimizer.state.values():
            state.pop("updates", None)
        first = next(p for group in optimizer.param_groups for p in group["params"] if optimizer.state.get(p))
        optimizer.state[first]["updates"] = torch.tensor(updates)


def _updates(optimizer: Optimizer) -> int:
    found = [state["updates"] for state in optimizer.state.values() if "updates" in state]
    return int(found[0]) if found else 0


def rebalance(b: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """The best-conditioned factors of the product B A: `B = U sqrt(S)`, `A = sqrt(S) V^T`, `B A = U S V^T`.

    The new factors have the same product and the same Gram matrix, `B^T B = A A^T = S`. The decomposition is
    that of an (r, r) matrix between the orthogonal parts of the factors; (m, n) is never formed. It is done
    in float32 or better. Where the product has a lower rank than r the last columns of B and rows of A are
    zero; a product of zero keeps its factors, which could not learn if both were.

    Args:
        b: `(m, r)`.
        a: `(r, n)`.

    Returns:
        New B and A, of the same shapes and precision.
    """
    import torch

    precision = torch.promote_types(b.dtype, torch.float32)
    left, upper = torch.linalg.qr(b.detach().to(precision))
    right, lower = torch.linalg.qr(a.detach().to(precision).T)
    u, s, vt = torch.linalg.svd(upper @ lower.T, full_matrices=False)
    if not s.numel() or s[0] == 0:
        return b.detach().clone(), a.detach().clone()
    new_b, new_a = torch.zeros_like(b, dtype=precision), torch.zeros_like(a, dtype=precision)
    new_b[:, : len(s)] = left @ u * s.sqrt()
    new_a[: len(s)] = (s.sqrt()[:, None] * vt) @ right.T
    return new_b.to(b.dtype), new_a.to(a.dtype)
