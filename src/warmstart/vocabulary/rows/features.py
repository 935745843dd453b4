"""Features: rows of tokens that are no text, such as codes of speech, from a feature vector of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.aux_space.formats import load_vectors
from warmstart.vocabulary.aux_space.space import AuxSpace
from warmstart.vocabulary.aux_space.tiles import unit
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.mix import RowMix, row_norms
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.rows._samples import Samples, target_features


class FeaturesSettings(Settings):
    """Options of `features`."""

    file: str
    """Vectors of tokens by their raw strings (.npz with `words` and `vectors`, .vec): for a code of speech
    the mean self-supervised feature of all frames that have it."""
    dim: int | None = Field(default=None, ge=1)
    """Numbers that each vector of `file` must have; any where not given."""
    codebook: str | None = None
    """Codebook vectors of tokens, in the same formats: a token without features takes those of the token
    whose codebook vector is nearest."""
    map: Literal["pca", "random"] = "pca"
    """How features of any width become rows: principal components of equal variance (whitening), or a fixed
    random projection, which keeps distances roughly and variances as they are."""
    seed: int = Field(default=0, ge=0)
    """Seed of the projection; the same for all seeds of a comparison."""


@dataclass(frozen=True)
class FeatureRows:
    """Mapped features, each on the mean norm of the source's rows.

    Attributes:
        features: `(n, f)` distinct feature vectors.
        place: `(V_target,)` feature of each target row, -1 for none.
        settings: How they are mapped.
    """

    features: np.ndarray
    place: np.ndarray
    settings: FeaturesSettings

    def __call__(
        self, ids: np.ndarray, rows: np.ndarray, *, reference: np.ndarray | None, **_: object
    ) -> np.ndarray:
        """`(len(ids), d)` rows in the precision of `rows`."""
        rng = np.random.default_rng(self.settings.seed)
        mapped = map_features(self.features, rows.shape[1], self.settings.map, rng)
        norms = row_norms(rows)
        goal = float((norms if reference is None else norms[reference]).mean())
        return np.asarray(unit(mapped)[self.place[ids]] * goal).astype(rows.dtype)


@initialisers.register(
    "features",
    settings=FeaturesSettings,
    title="Optimizing Speech Language Models for Acoustic Consistency (CAST), initialisation",
    tags=("dense", "features"),
)
def features(context: RowContext, settings: FeaturesSettings) -> RowMix:
    """`E_t[c] = g M f_c / |M f_c|`: the feature f of token c, mapped to the width of the model by M, on the
    mean norm g of the source's rows.

    For tokens that are appended to a text model and mean something else, above all codes of a speech codec
    with a self-supervised feature each, so that codes which sound alike start alike. Input and head rows get
    the same vectors on their own norms. Tokens without features take those of the nearest codebook vector,
    or else are the mean row. The tokens must be ordinary added tokens: special ones have no text rows, and
    only those that another special token plays are copied.

    CAST's formulas are not public; whitening, projection and norm are one reading, each to be switched.

    Returns:
        A mix whose new rows hold no weights but these vectors, `(V_target, V_source)`.

    Raises:
        UserError: A file of another width than `dim`, or that names none of the new tokens, or only special
            ones; codebook vectors without any token that has features.
    """
    given = load_vectors(settings.file, dim=settings.dim)
    if not np.ptp(given.vectors, axis=0).any():
        raise UserError("all features are equal", where=settings.file, fix="give at least two that differ")
    tokens = context.vocab.target
    place = np.full(context.shape[0], -1, dtype=np.int64)
    named = [token for token in tokens if token.string in given]
    for token in named:
        place[token.id] = given.index[token.string]
    wanted = context.wanted
    if not (place[wanted] >= 0).any():
        special = [token.string for token in named if token.role is not None]
        why = f"only special tokens such as {special[0]!r}" if special else "none of the new tokens"
        raise UserError(
            f"the features name {why}",
            where=settings.file,
            fix="use the raw strings of tokens that the source lacks, added as ordinary (not special) tokens",
        )
    if settings.codebook is not None:
        _from_codebook(context, load_vectors(settings.codebook), place, settings.codebook)
    known = place[wanted] >= 0
    mix = ComputedMix.of(
        context.shape, wanted[known], FeatureRows(given.vectors.astype(np.float64), place, settings)
    )
    return mix.with_mean(wanted[~known])


def _from_codebook(context: RowContext, codebook: AuxSpace, place: np.ndarray, where: str) -> None:
    """Give each wanted token without features those of the nearest code (Euclidean), in `place`."""
    from scipy.spatial import cKDTree

    strings = [token.string for token in context.vocab.target]
    coded = np.array([strings[i] in codebook for i in context.wanted], dtype=bool)
    ids = context.wanted[coded]
    vectors = codebook.vectors[[codebook.index[strings[i]] for i in ids]].astype(np.float64)
    has = place[ids] >= 0
    if not has.any():
        raise UserError(
            "no token of the codebook has features",
            where=where,
            fix="name tokens in the codebook as in the features",
        )
    _, nearest = cKDTree(vectors[has]).query(vectors[~has])
    place[ids[~has]] = place[ids[has]][nearest]


def map_features(
    vectors: np.ndarray, width: int, how: Literal["pca", "random"], rng: np.random.Generator
) -> np.ndarray:
    """Centred vectors `(n, f)` mapped to `(n, width)`, float64.

    `pca`: the `min(f, n - 1, width)` largest principal components, each scaled to variance one, turned into
    the wider space by a random orthogonal map, so that no dimension of the model stays empty. `random`: by a
    matrix of independent normal entries with variance 1 / f.
    """
    vectors = vectors.astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    if how == "random":
        return centred @ (rng.standard_normal((vectors.shape[1], width)) / np.sqrt(vectors.shape[1]))
    variance, axes = np.linalg.eigh(centred.T @ centred / len(centred))  # ascending
    variance, axes = variance[::-1][:width], axes[:, ::-1][:, :width]
    real = variance > 1e-9 * max(float(variance[0]), 1e-300)
    whitened = centred @ (axes[:, real] / np.sqrt(variance[real]))
    turn = np.linalg.qr(rng.standard_normal((width, width)))[0]
    return whitened @ turn[: whitened.shape[1]]


features.contract_settings = Samples(file=target_features)  # type: ignore[attr-defined]
