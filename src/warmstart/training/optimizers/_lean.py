"""AdamW with a smaller state for matrices: what the methods with projected gradients share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.training.optimizer import OptimizerContext
from warmstart.training.optimizers._settings import LimitedSettings


@dataclass(frozen=True)
class MatrixUpdate:
    """One update of one weight, transposed where needed so that the first side is the shorter one.

    Attributes:
        grad: Gradient, `(short, long)`: G of a weight (m, n) with m < n, else its transpose.
        state: Tensors that the method keeps of this weight; they are saved and come back bit for bit.
        taken: Updates of this weight before this one.
        name: Name of the weight.
        seed: Of the run.
        betas: Decay of the first and second moment.
        epsilon: Added to the root of the second moment.
    """

    grad: Tensor
    state: dict[str, Any]
    taken: int
    name: str
    seed: int
    betas: tuple[float, float]
    epsilon: float

    def adam(self, value: Tensor) -> Tensor:
        """Adam's direction for `value`, `m_hat / (sqrt(v_hat) + epsilon)`, with moments of its shape."""
        (beta1, beta2), state = self.betas, self.state
        if "exp_avg" not in state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(value), torch.zeros_like(value)
        mean = state["exp_avg"].lerp_(value, 1 - beta1)
        square = state["exp_avg_sq"].mul_(beta2).addcmul_(value, value, value=1 - beta2)
        count = self.taken + 1
        root = square.sqrt().div_(math.sqrt(1 - beta2**count)).add_(self.epsilon)
        return torch.div(mean, root, out=root).div_(1 - beta1**count)

    def singular_basis(self, rank: int | None, gap: int) -> Tensor:
        """The top left singular vectors of the gradient, `(short, r)`, renewed every `gap` updates and kept.

        The sign of each is fixed (its largest component is positive), as libraries return either.

        Raises:
            FloatingPointError: The gradient is not finite.
        """
        if self.taken % gap == 0 or "basis" not in self.state:
            if not torch.isfinite(self.grad).all():
                raise FloatingPointError(f"the gradient of {self.name} is not finite")
            left, _, _ = torch.linalg.svd(self.grad, full_matrices=False)
            top = left[:, : self._rank(rank)]
            sign = top.gather(0, top.abs().argmax(0, keepdim=True)).sign()
            self.state["basis"] = (top * sign).contiguous()
        basis: Tensor = self.state["basis"]
        return basis

    def random_basis(self, rank: int | None, gap: int) -> Tensor:
        """Entries from N(0, 1/r), `(short, r)`, others every `gap` updates; drawn again each time, not kept.

        They depend on the run's seed, the weight's name and how often they were renewed, and on nothing else.
        """
        key = f"{self.seed} {self.name} {self.taken // gap}".encode()
        number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) >> 1
        generator = torch.Generator(device=self.grad.device).manual_seed(number)
        size = self._rank(rank)
        drawn = torch.randn(
            (len(self.grad), size), generator=generator, device=self.grad.device, dtype=self.grad.dtype
        )
        return drawn.div_(math.sqrt(size))

    def _rank(self, rank: int | None) -> int:
        return max(1, len(self.grad) // 4) if rank is None else min(rank, len(self.grad))

    def limited(self, step: Tensor, settings: LimitedSettings) -> Tensor:
        """`step`, shortened in place where it is over `growth_limit` times as long as in the last update.

        This is Fira's norm-growth limiter. A step of length 0 sets no limit for the next one.
        """
        if (growth := settings.growth_limit) is None:
            return step
        length = torch.linalg.vector_norm(step)
        if settings.limited == "released":
            (beta1, beta2), count = self.betas, self.taken + 1
            length = length * ((1 - beta1**count) / math.sqrt(1 - beta2**count))
        if (last := self.state.get("length")) is not None:
            allowed = torch.where(last > 0, growth * last, length)
            factor = torch.where(length > allowed, allowed / length, 1.0)
            step.mul_(factor)
            length = length * factor
        self.state["length"] = length
        return step


def scaling(adam: Tensor, value: Tensor, *, channels: bool = True) -> Tensor:
    """How much Adam lengthens `value`: `|adam| / |value|` per column `(1, long)`, or of the whole, `(1, 1)`.

    0 where the value is 0. The released codes add 1e-8 to the denominator, which shrinks the steps of
    gradients that are not much longer than that, and blows up those of columns that are 0 in the projection.
    """
    over = (0,) if channels else (0, 1)
    above, below = (torch.linalg.vector_norm(x, dim=over, keepdim=True) for x in (adam, value))
    return torch.where(below > 0, above / below, 0.0)


class LeanAdamW(torch.optim.AdamW):
    """Torch's fused AdamW, but for the matrices: their direction comes from a method with a smaller state.

    `W -= lr * weight_decay * W`, then `W -= lr * direction`, as in AdamW. Projections and moments of a matrix
    have the precision of its gradient (float32 in training, whatever it is computed in).

    Args:
        context: What it is made for.
        direction: Gives the direction `(short, long)` of one update.
    """

    def __init__(self, context: OptimizerContext, direction: Callable[[MatrixUpdate], Tensor]) -> None:
        groups = []
        for group in context.groups:
            for lean in (True, False):
                chosen = [p for p in group["params"] if (context.names[p] in context.matrices) == lean]
                if chosen:
                    groups.append({**group, "params": chosen, "lean": lean})
        super().__init__(
            groups, lr=context.learning_rate, betas=context.betas, eps=context.epsilon, fused=True
        )
        self._step_supports_amp_scaling = False  # gradients of matrices are used as they are
        self._direction, self._names, self._seed = direction, dict(context.names), context.seed

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update all parameters that have a gradient."""
        groups = self.param_groups
        try:
            self.param_groups = [group for group in groups if not group["lean"]]
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            for weight in group["params"] if group["lean"] else ():
                if weight.grad is not None:
                    self._update(weight, group)
        return loss

    def _update(self, weight: nn.Parameter, group: dict[str, Any]) -> None:
        assert weight.grad is not None
        state, wide = self.state[weight], weight.shape[0] < weight.shape[1]
        count = state.get("step", torch.zeros((), device="cpu")).cpu()  # its value is needed on the host
        update = MatrixUpdate(
            grad=weight.grad if wide else weight.grad.T,
            state=state,
            taken=int(count),
            name=self._names[weight],
            seed=self._seed,
            betas=group["betas"],
            epsilon=group["eps"],
        )
        direction = self._direction(update)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(direction if wide else direction.T, alpha=-group["lr"])
        state["step"] = count + 1
