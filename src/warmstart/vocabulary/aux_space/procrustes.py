"""Bring two auxiliary spaces into one: dictionary pairs and an orthogonal map."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.aux_space.space import AuxSpace
from warmstart.vocabulary.aux_space.tiles import unit


@dataclass(frozen=True)
class SpaceMap:
    """An affine map of one space: `(v - shift) @ matrix`, of `v` scaled to length one if `normalise`.

    Attributes:
        matrix: `(d, d')`.
        shift: `(d,)`, subtracted first.
        normalise: Whether vectors are scaled to length one before anything else.
    """

    matrix: np.ndarray
    shift: np.ndarray
    normalise: bool = False

    def apply(self, space: AuxSpace) -> AuxSpace:
        """The mapped space; unknown rows stay zero. The n-gram table is dropped: compose before mapping."""
        vectors = unit(space.vectors) if self.normalise else space.vectors
        mapped = (vectors - self.shift.astype(np.float32)) @ self.matrix.astype(np.float32)
        mapped[~space.known] = 0.0
        return AuxSpace(space.names, mapped, space.counts)


@dataclass(frozen=True)
class Alignment:
    """Maps after which cosines across two spaces mean something.

    Attributes:
        source: Map of the source space.
        target: Map of the target space.
        pairs: Vector pairs from which the map was fitted.
        fit: Mean cosine of these pairs after mapping; about 0 means that nothing was aligned.
    """

    source: SpaceMap
    target: SpaceMap
    pairs: int
    fit: float


def procrustes(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The orthogonal `R` `(d, d)` that minimises `||source @ R - target||`, from the SVD of `source' target`.

    Args:
        source: `(n, d)` vectors.
        target: `(n, d)` vectors of the same things, row by row.
    """
    product = source.astype(np.float64).T @ target.astype(np.float64)
    left, _, right = np.linalg.svd(product)
    return left @ right


def dictionary_hits(
    source: AuxSpace, target: AuxSpace, dictionary: Iterable[tuple[str, str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of all pairs found, each side tried as is, in lower case and in Title Case; all hits are kept.

    Returns:
        Source rows and target rows, `(n,)` each, without repeated pairs.
    """
    hits: dict[tuple[int, int], None] = {}
    for first, second in dictionary:
        left = [source.index[w] for w in dict.fromkeys((first, first.lower(), first.title())) if w in source]
        right = [
            target.index[w] for w in dict.fromkeys((second, second.lower(), second.title())) if w in target
        ]
        hits.update(dict.fromkeys((s, t) for s in left for t in right))
    pairs = np.array(list(hits), dtype=np.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def align_spaces(
    source: AuxSpace,
    target: AuxSpace,
    dictionary: Iterable[tuple[str, str]],
    *,
    centre: bool = False,
    normalise: bool = False,
    where: object = None,
) -> Alignment:
    """Fit the maps that bring the source space onto the target space, by Procrustes over dictionary pairs.

    WECHSEL (arXiv 2112.06598) neither centres nor normalises; both usually help (Xing et al. 2015, Artetxe
    et al. 2016) and are offered as variants. Its code reduces only the source space when dimensions differ;
    here the wider one is reduced to the narrower by principal components, whichever it is. Repeated pairs
    count once (its code counts a pair again for each spelling that leads to the same words).

    Args:
        source: Space of the source language.
        target: Space of the target language.
        dictionary: Pairs (source word, target word).
        centre: Subtract each space's mean first.
        normalise: Scale all vectors to length one before that.
        where: File or setting named in errors.

    Raises:
        UserError: No dictionary pair has vectors on both sides.
    """
    pairs = list(dictionary)
    rows_s, rows_t = dictionary_hits(source, target, pairs)
    if not len(rows_s):
        raise UserError(
            f"none of the {len(pairs)} dictionary pairs has vectors on both sides",
            where=where,
            fix="check that the first column is the source language and that the texts contain these words",
        )
    width = min(source.dim, target.dim)
    maps = [_own_map(space, width, centre, normalise) for space in (source, target)]
    left, right = maps[0].apply(source).vectors[rows_s], maps[1].apply(target).vectors[rows_t]
    rotation = procrustes(left, right)
    source_map = SpaceMap(maps[0].matrix @ rotation, maps[0].shift, normalise)
    cosine = np.einsum("ij,ij->i", unit(left @ rotation.astype(np.float32)), unit(right))
    return Alignment(source_map, maps[1], len(rows_s), float(cosine.mean()))


def _own_map(space: AuxSpace, width: int, centre: bool, normalise: bool) -> SpaceMap:
    """Centring and reduction to `width` principal components, as far as they are wanted."""
    vectors = space.vectors[space.known]
    vectors = (unit(vectors) if normalise else vectors).astype(np.float64)
    mean = vectors.mean(axis=0)
    matrix = np.eye(space.dim)
    if space.dim > width:
        _, axes = np.linalg.eigh((vectors - mean).T @ (vectors - mean))  # ascending
        matrix = axes[:, ::-1][:, :width]
    return SpaceMap(matrix, mean if centre else np.zeros(space.dim), normalise)
