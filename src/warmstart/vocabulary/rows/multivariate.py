"""Multivariate: rows from a narrow normal distribution with the full covariance of the trained rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from warmstart.foundation.settings import Settings
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers


class MultivariateSettings(Settings):
    """Options of `multivariate`."""

    scale: float = Field(default=1e-5, ge=0)
    """Factor on the covariance: 1e-5 as published, 1e-9 is `mean_resizing` of transformers, 0 the mean row,
    1 draws rows that spread as the trained ones do."""


@dataclass(frozen=True)
class GaussianRows:
    """Rows from `N(mean, scale * covariance)` of a matrix.

    Attributes:
        scale: Factor on the covariance.
    """

    scale: float

    def __call__(
        self,
        ids: np.ndarray,
        rows: np.ndarray,
        *,
        reference: np.ndarray | None,
        rng: np.random.Generator,
        **_: object,
    ) -> np.ndarray:
        """`(len(ids), d)` rows in the precision of `rows`."""
        mean, covariance = mean_and_covariance(rows, reference)
        variance, axes = np.linalg.eigh(covariance)
        root = axes * np.sqrt(self.scale * np.maximum(variance, 0.0))  # singular with fewer rows than width
        out = np.empty((len(ids), rows.shape[1]), dtype=rows.dtype)
        for start in range(0, len(ids), 1024):
            count = len(ids[start : start + 1024])
            out[start : start + count] = mean + rng.standard_normal((count, len(mean))) @ root.T
        return out


@initialisers.register(
    "multivariate",
    settings=MultivariateSettings,
    title="An Empirical Comparison of Vocabulary Expansion and Initialization Approaches for Language Models",
    arxiv="2407.05841",
    tags=("dense", "fallback"),
)
def multivariate(context: RowContext, settings: MultivariateSettings) -> RowMix:
    """`E_t[n] ~ N(mu, scale * Sigma)`, with mean mu and full covariance Sigma of the rows that a token uses.

    With the published scale (J. Hewitt, "Initializing New Word Embeddings for Pretrained Language Models")
    the rows are almost the mean: their deviation is 0.3 % of the trained rows'. Such head rows take little
    probability from old tokens, and differ just enough to be trained apart. On par with learned mixtures
    after continued pretraining in the comparison named above. An untied head has its own mean and covariance.

    The covariance is the sum over n rows divided by n, as in Hewitt's code and in transformers. Rows leave
    the convex hull of the old ones in rare directions only; nothing guarantees that they stay in it.

    Returns:
        A mix whose new rows hold no weights but a distribution, `(V_target, V_source)`.
    """
    return ComputedMix.of(context.shape, context.wanted, GaussianRows(settings.scale))


def mean_and_covariance(
    rows: np.ndarray, reference: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Mean `(d,)` and covariance `(d, d)` over rows `reference` (default all), float64, in one pass."""
    ids = np.arange(len(rows)) if reference is None else reference
    width = rows.shape[1]
    total, products = np.zeros(width), np.zeros((width, width))
    # the shift keeps the difference of products from cancelling
    shift = rows[ids[:1024]].mean(axis=0, dtype=np.float64) if len(ids) else total
    for start in range(0, len(ids), 4096):
        part = rows[ids[start : start + 4096]] - shift
        total += part.sum(axis=0)
        products += part.T @ part
    mean = total / max(1, len(ids))
    return shift + mean, products / max(1, len(ids)) - np.outer(mean, mean)
