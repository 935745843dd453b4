"""Projection: new rows by a linear map from auxiliary vectors, fitted on the overlapping tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.aux_space.binding import target_token_space
from warmstart.vocabulary.aux_space.compose import Composition
from warmstart.vocabulary.aux_space.train import StaticSettings
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers


class ProjectionSettings(Settings):
    """Options of `projection`."""

    vectors: str | None = None
    """File of vectors of target tokens or of words; without it they are trained on the target text."""
    training: StaticSettings = StaticSettings()
    """How vectors are trained."""
    compose: Composition = "auto"
    """How tokens get vectors where the vectors are of words."""
    ridge: float = Field(default=1e-3, ge=0)
    """Penalty on the map's weights, relative to the mean squared component; 0 is plain least squares."""


@dataclass(frozen=True)
class LinearMap:
    """Rows as a linear map of features, fitted anew for each matrix (input rows, head rows).

    A map fitted by least squares is itself a mixture, `X_new (X'X)^-1 X' E_s`, but a dense one: over 50,000
    tokens its weights would need gigabytes. So the two thin factors are kept.

    Attributes:
        features: `(V_target, f)`, without the constant.
        anchors: `(n, 2)` pairs (target id, source id) on which the map is fitted.
        ridge: Penalty relative to the mean squared component.
    """

    features: np.ndarray
    anchors: np.ndarray
    ridge: float

    def __call__(self, ids: np.ndarray, rows: np.ndarray, **_: object) -> np.ndarray:
        """The map's rows `(len(ids), d)`, in the precision of `rows`."""
        centre, mean, slope = self.fit(rows[self.anchors[:, 1]].astype(np.float64))
        out = np.empty((len(ids), rows.shape[1]), dtype=rows.dtype)
        for start in range(0, len(ids), 8192):
            part = ids[start : start + 8192]
            out[start : start + 8192] = (self.features[part] - centre) @ slope + mean
        return out

    def fit(self, goal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Centre of the features `(f,)`, mean row `(d,)` and slope `(f, d)`; the mean carries no penalty."""
        known = self.features[self.anchors[:, 0]].astype(np.float64)
        centre, mean = known.mean(axis=0), goal.mean(axis=0)
        x = known - centre
        level = float(np.square(x).mean()) * len(x)
        gram = x.T @ x + self.ridge * level * np.eye(x.shape[1])
        return centre, mean, np.linalg.lstsq(gram, x.T @ (goal - mean), rcond=None)[0]


@initialisers.register(
    "projection",
    settings=ProjectionSettings,
    title="IndoBERTweet: A Pretrained Language Model for Indonesian Twitter with Effective Domain-Specific "
    "Vocabulary Initialization",
    arxiv="2109.04607",
    tags=("dense", "corpus"),
)
def projection(context: RowContext, settings: ProjectionSettings) -> RowMix:
    """`E_t[n] = [1, phi(n)] P`, with P fitted by ridge regression of `E_s[o]` on phi(o) over the overlap.

    One of the four initialisations compared by IndoBERTweet (arXiv 2109.04607), where it loses against the
    mean of pieces. The vectors phi are static vectors of the target text cut by the target tokenizer. A
    separate map is fitted for an untied head. Tokens without a vector are drawn from N(mu, sd). Rows leave
    the convex hull of the source's rows, and weights of the map are not convex.

    Returns:
        A mix whose new rows hold no weights but a linear map, `(V_target, V_source)`.

    Raises:
        UserError: No text or vectors, or no overlapping token has a vector.
    """
    space = target_token_space(
        context, "projection", file=settings.vectors, training=settings.training, compose=settings.compose
    )
    anchors = context.vocab.matched
    anchors = anchors[space.known[anchors[:, 0]]]
    if not len(anchors):
        raise UserError(
            "no token that both vocabularies share has a vector",
            where="initialiser projection",
            fix="give more target text, lower training.min_count, or use mean-of-pieces",
        )
    known = context.wanted[space.known[context.wanted]]
    return ComputedMix.of(context.shape, known, LinearMap(space.vectors, anchors, settings.ridge))
