"""Random rows: what most people get when they replace a vocabulary, and the baseline of every comparison."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from scipy.sparse import csr_matrix

from warmstart.foundation.settings import Settings
from warmstart.vocabulary.mix import Noise, RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers


class RandomSettings(Settings):
    """Options of `random`."""

    distribution: Literal["gaussian", "uniform"] = "gaussian"
    """`gaussian`: N(0, scale²), the standard initialisation. `uniform`: U(-scale, scale), the weak baseline
    of IndoBERTweet, far off the scale of trained rows."""
    scale: float | None = Field(default=None, gt=0)
    """Deviation or half-width; the model's own `initializer_range` (T5: `initializer_factor`) for `gaussian`,
    1 for `uniform`."""


@initialisers.register(
    "random",
    settings=RandomSettings,
    title="Standard random initialisation; uniform(-1, 1) as in IndoBERTweet",
    arxiv="2109.04607",
    tags=("fallback", "all-rows"),
)
def random(context: RowContext, settings: RandomSettings) -> RowMix:
    """Every row drawn from the distribution with which the family starts training.

    The body keeps its weights; nothing of the old rows survives, not even for shared tokens unless
    `copy_overlap` is set. Llama, Mistral, Qwen, GPT, BERT and RoBERTa draw from N(0, `initializer_range`²);
    T5 draws its rows from N(0, `initializer_factor`²).

    Args:
        context: Uses the config and the shapes only.
        settings: Distribution and scale.

    Returns:
        A mix without weights, all rows fallback. Shape `(V_target, V_source)`.
    """
    if settings.distribution == "uniform":
        noise = Noise("uniform", settings.scale or 1.0)
    else:
        noise = Noise("gaussian", settings.scale or standard_scale(context.config))
    count, width = context.shape
    return RowMix(csr_matrix((count, width)), np.ones(count, dtype=bool), noise=noise)


def standard_scale(config: dict[str, object]) -> float:
    """Deviation with which a family draws its embedding rows."""
    t5 = config.get("model_type") in ("t5", "mt5", "umt5")
    value = config.get("initializer_factor" if t5 else "initializer_range")
    return float(value) if isinstance(value, int | float) else (1.0 if t5 else 0.02)
