"""Updates of the memory-lean optimizers written out in numpy, and matrices to try them on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from warmstart.training.optimizer import OptimizerContext, chosen_optimizer

BETAS, EPSILON, RATE, DECAY, SEED = (0.8, 0.9), 1e-6, 0.05, 0.3, 7
SHAPES = {"wide": (6, 10), "tall": (10, 4), "square": (5, 5)}

LEAN: dict[str, dict[str, Any]] = {
    "galore": {"name": "galore", "rank": 5, "update_proj_gap": 5},
    "fira": {"name": "fira", "update_proj_gap": 5},
    "apollo": {"name": "apollo", "rank": 3, "update_proj_gap": 5},
    "apollo-mini": {"name": "apollo-mini", "update_proj_gap": 5},
    "adafactor": {"name": "adafactor"},
}
"""Settings under which projections are renewed within a short run."""


def adam(moments: list[np.ndarray] | None, value: np.ndarray, count: int) -> tuple[list[np.ndarray], Any]:
    """Moments after `value` and Adam's direction; `count` is 1 for the first update."""
    m, v = moments or [np.zeros_like(value), np.zeros_like(value)]
    m, v = BETAS[0] * m + (1 - BETAS[0]) * value, BETAS[1] * v + (1 - BETAS[1]) * value**2
    direction = (m / (1 - BETAS[0] ** count)) / (np.sqrt(v / (1 - BETAS[1] ** count)) + EPSILON)
    return [m, v], direction


def singular(gradient: np.ndarray, rank: int) -> np.ndarray:
    """Top left singular vectors, each with a positive largest component."""
    vectors = np.linalg.svd(gradient)[0][:, :rank]
    return vectors * np.sign([column[np.abs(column).argmax()] for column in vectors.T])


def gaussian(name: str, part: int, size: int, rank: int) -> np.ndarray:
    """Entries from N(0, 1/r), seeded by run, weight and how often they were renewed."""
    key = hashlib.blake2b(f"{SEED} {name} {part}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key, "big") // 2)
    return torch.randn(size, rank, generator=generator, dtype=torch.float64).numpy() / rank**0.5


def lengths(matrix: np.ndarray) -> np.ndarray:
    return np.sqrt((matrix**2).sum(axis=0))


class Twin:
    """One weight under one method; `step` is the formula, `weight` and `state` are what it leaves."""

    def __init__(self, weight: np.ndarray, name: str, method: str, options: dict[str, Any]) -> None:
        self.weight, self.name, self.method, self.options = weight.copy(), name, method, options
        self.moments: list[np.ndarray] | None = None
        self.length: float | None = None
        self.count, self.limits = 0, 0
        self.basis = np.zeros(0)

    def step(self, gradient: np.ndarray, rate: float = RATE, decay: float = DECAY) -> None:
        tall = self.weight.shape[0] >= self.weight.shape[1]
        g = gradient.T if tall else gradient
        rank = min(self.options["rank"], len(g))
        if self.count % self.options["gap"] == 0:
            part = self.count // self.options["gap"]
            svd = self.method in ("galore", "fira")
            self.basis = singular(g, rank) if svd else gaussian(self.name, part, len(g), rank)
        self.count += 1
        low = self.basis.T @ g
        self.moments, direction = adam(self.moments, low, self.count)
        update = {"galore": self._galore, "fira": self._fira}.get(self.method, self._apollo)(
            g, low, direction
        )
        self.weight = self.weight * (1 - rate * decay) - rate * (update.T if tall else update)

    def _galore(self, g: np.ndarray, low: np.ndarray, direction: np.ndarray) -> np.ndarray:
        return self.options["scale"] * self.basis @ direction

    def _fira(self, g: np.ndarray, low: np.ndarray, direction: np.ndarray) -> np.ndarray:
        share = self.options["scale"] if self.options.get("residual") == "released" else 1
        rest = (g - share * self.basis @ low) * (lengths(direction) / lengths(low))
        return self.options["scale"] * self.basis @ direction + self._limited(rest)

    def _apollo(self, g: np.ndarray, low: np.ndarray, direction: np.ndarray) -> np.ndarray:
        if self.options["scale_type"] == "tensor":
            phi = np.linalg.norm(direction) / np.linalg.norm(low)
        else:
            phi = lengths(direction) / lengths(low)
        return self.options["scale"] ** 0.5 * self._limited(g * phi)

    def _limited(self, update: np.ndarray) -> np.ndarray:
        length, growth = float(np.linalg.norm(update)), self.options["growth"]
        if self.options.get("limited") == "released":
            length *= (1 - BETAS[0] ** self.count) / (1 - BETAS[1] ** self.count) ** 0.5
        if growth is not None and self.length is not None and length > growth * self.length:
            self.limits += 1
            update, length = update * (growth * self.length / length), growth * self.length
        self.length = length
        return update


def weights(dtype: torch.dtype = torch.float64) -> dict[str, nn.Parameter]:
    """Three matrices of a layer, and what is left to AdamW: a table of rows and a vector."""
    rng = np.random.default_rng(0)
    shapes = {f"layers.0.{name}": shape for name, shape in SHAPES.items()} | {"rows": (9, 5), "bias": (5,)}
    return {
        name: nn.Parameter(torch.from_numpy(rng.standard_normal(shape)).to(dtype))
        for name, shape in shapes.items()
    }


def context_of(named: dict[str, nn.Parameter], **changes: Any) -> OptimizerContext:
    """As the loop makes it: matrices decay, the rest does not."""
    matrices = frozenset(name for name in named if name.startswith("layers."))
    groups = [
        {"params": [named[n] for n in named if n in matrices], "weight_decay": DECAY},
        {"params": [named[n] for n in named if n not in matrices], "weight_decay": 0.0},
    ]
    usual: dict[str, Any] = {
        "groups": [group for group in groups if group["params"]],
        "names": {parameter: name for name, parameter in named.items()},
        "matrices": matrices,
        "learning_rate": RATE,
        "betas": BETAS,
        "epsilon": EPSILON,
        "seed": SEED,
    }
    return OptimizerContext(**{**usual, **changes})


def make(named: dict[str, nn.Parameter], optimizer: Any, **changes: Any) -> torch.optim.Optimizer:
    entry, options = chosen_optimizer(optimizer)
    return entry.target(context_of(named, **changes), options)


def gradients(
    named: dict[str, nn.Parameter], steps: int, sizes: Iterable[float] = ()
) -> list[dict[str, Any]]:
    """Float64 gradients by name; `sizes` are factors on the gradients of each step."""
    rng = np.random.default_rng(1)
    factors = [*sizes, *[1.0] * steps][:steps]
    return [{n: f * rng.standard_normal(tuple(p.shape)) for n, p in named.items()} for f in factors]


def run(
    named: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    given: list[dict[str, np.ndarray]],
    after: Callable[[int], None] = lambda step: None,
) -> None:
    """Take a step with each of the `given` gradients."""
    for step, gradient in enumerate(given):
        for name, parameter in named.items():
            parameter.grad = torch.from_numpy(gradient[name]).to(parameter.dtype)
        optimizer.step()
        after(step)
