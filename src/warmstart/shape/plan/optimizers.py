"""What optimizers keep beside the weights, as data (`optimizers.yaml`)."""

from __future__ import annotations

from functools import cache
from importlib import resources

import yaml

from warmstart.anatomy.expressions import evaluate
from warmstart.foundation.errors import UserError, nearest
from warmstart.foundation.settings import Settings
from warmstart.shape.plan.numerics import Numerics
from warmstart.shape.plan.weights import Weights

_MOMENTS = "2 * m * n"


class Optimizer(Settings):
    """The state of one optimizer. Lean optimizers treat attention and feed-forward matrices in their own way
    and everything else (embeddings, positions, head, norms, biases) as AdamW does."""

    title: str
    """Paper."""
    arxiv: str = ""
    """arXiv identifier."""
    matrix: str | float = _MOMENTS
    """Entries for an attention or feed-forward matrix of sides `m <= n`, with `r = min(rank, m)`."""
    table: str | float = _MOMENTS
    """Entries for any other matrix."""
    vector: float = 2
    """Entries per entry of a norm or bias."""
    bytes: int | None = None
    """Bytes per entry of `matrix` where they differ from the precision's moments."""
    whole: bool = False
    """Whether it needs the gradients of whole matrices, so that they cannot be divided among devices."""

    @property
    def has_rank(self) -> bool:
        """Whether its state depends on a rank."""
        return "r" in str(self.matrix).replace("*", " ").split()

    def state_bytes(self, weights: Weights, numerics: Numerics, rank: int) -> float:
        """Bytes of the optimizer's state and of the float32 master weights of `weights`."""
        own = sum(_entries(self.matrix, shape, rank) for shape in weights.matrices)
        rest = sum(_entries(self.table, shape, rank) for shape in weights.tables)
        rest += self.vector * weights.vectors
        each = numerics.moment if self.bytes is None else self.bytes
        return own * each + rest * numerics.moment + numerics.master * weights.size


def _entries(expression: str | float, shape: tuple[int, int], rank: int) -> float:
    m, n = min(shape), max(shape)
    return float(evaluate(expression, {"m": m, "n": n, "r": min(rank, m)}))


@cache
def optimizers() -> dict[str, Optimizer]:
    """Every known optimizer by name."""
    text = resources.files(__package__).joinpath("optimizers.yaml").read_text(encoding="utf-8")
    return {name: Optimizer.parse(row, where=name) for name, row in yaml.safe_load(text).items()}


def optimizer_of(name: str) -> Optimizer:
    """The optimizer called `name`; an unknown name raises `UserError`."""
    known = optimizers()
    if name not in known:
        raise UserError(f"unknown optimizer {name!r}", fix=nearest(name, known))
    return known[name]
