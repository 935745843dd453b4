"""Projection: new rows by a linear map from auxiliary vectors, fitted on the overlapping tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.aux_space.binding import target_token_space
from warmstart.vocabulary.aux_space.compose import Composition
from warmstart.vocabulary.aux_space.train import StaticSettings
from warmstart.vocabulary.mix import RowMix, moments
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
class ProjectedMix(RowMix):
    """A row mix some of whose rows come from a linear map instead of weights.

    A linear map fitted by least squares is itself a mixture, `X_new (X'X)^-1 X' E_s`, but a dense one: over
    50,000 tokens its weights would need gigabytes. So the two thin factors are kept, and the map is fitted
    anew for each matrix (input rows, head rows).

    Attributes:
        features: `(V_target, f)` float64, a constant first; zero rows where there is no vector.
        anchors: `(n, 2)` pairs (target id, source id) on which the map is fitted.
        ridge: See the settings.
    """

    features: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    anchors: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.int64))
    ridge: float = 0.0

    @property
    def projected(self) -> np.ndarray:
        """`(V_target,)` bool: rows that the map fills."""
        return ~(self.fallback | self.mean) & (np.diff(self.weights.indptr) == 0)

    def check(self) -> ProjectedMix:
        """As in [`RowMix`][warmstart.vocabulary.mix.RowMix]; projected rows need a vector, not weights."""
        projected = self.projected
        if not self.features[projected].any(axis=1).all():
            raise UserError("a row of the mix has neither weights nor a vector to project")
        RowMix(self.weights, self.fallback | projected, self.mean, self.noise).check()
        return self

    def apply(self, rows: np.ndarray, **options: Any) -> np.ndarray:
        """As [`RowMix.apply`][warmstart.vocabulary.mix.RowMix.apply], then the projected rows."""
        norm_match = options.pop("norm_match", None)
        out = super().apply(rows, **options)
        ids = np.flatnonzero(self.projected)
        if len(ids):
            solution = self._fit(rows[self.anchors[:, 1]].astype(np.float64))
            for start in range(0, len(ids), 8192):
                part = ids[start : start + 8192]
                out[part] = self.features[part] @ solution
        if norm_match is not None:
            self._match_norms(out, rows, np.asarray(norm_match), options.get("reference"))
        return out

    def apply_bias(self, bias: np.ndarray, *, reference: np.ndarray | None = None) -> np.ndarray:
        """As in `RowMix`; projected rows get the mean bias, as new types do in IndoBERTweet."""
        out = super().apply_bias(bias, reference=reference)
        out[self.projected] = moments(bias[:, None].astype(np.float64), reference)[0][0]
        return out

    def _fit(self, goal: np.ndarray) -> np.ndarray:
        """The map `(f, d)`: least squares with an intercept that carries no penalty."""
        known = self.features[self.anchors[:, 0]]
        centre, mean = known.mean(axis=0), goal.mean(axis=0)
        centre[0] = 0.0
        x = (known - centre)[:, 1:]
        level = float(np.square(x).mean()) * len(x)
        gram = x.T @ x + self.ridge * level * np.eye(x.shape[1])
        slope = np.linalg.lstsq(gram, x.T @ (goal - mean), rcond=None)[0]
        return np.concatenate([(mean - centre[1:] @ slope)[None], slope])


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
    count = context.shape[0]
    features = np.zeros((count, space.dim + 1))
    known = np.flatnonzero(space.known)
    features[known, 0], features[known, 1:] = 1.0, space.vectors[known]
    fallback = np.ones(count, dtype=bool)
    fallback[context.wanted[space.known[context.wanted]]] = False
    from scipy.sparse import csr_matrix

    return ProjectedMix(
        csr_matrix(context.shape), fallback, features=features, anchors=anchors, ridge=settings.ridge
    )
