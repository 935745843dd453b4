"""Words of two languages with vectors in one space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.aux_space.anchors import anchor_pairs
from warmstart.vocabulary.aux_space.bilingual import WordVectorSettings
from warmstart.vocabulary.aux_space.binding import word_space
from warmstart.vocabulary.aux_space.procrustes import align_spaces

if TYPE_CHECKING:
    from warmstart.vocabulary.rows._base import RowContext


@dataclass(frozen=True)
class Words:
    """Words of both languages, the most frequent first.

    Attributes:
        texts: The words; one that both languages have stands there twice.
        vectors: `(W, v)` float32.
        of_source: `(W,)` bool: words of the source language.
    """

    texts: list[str]
    vectors: np.ndarray
    of_source: np.ndarray


def bilingual_words(context: RowContext, method: str, settings: WordVectorSettings) -> Words:
    """Words of the source's and of the target's text in one space.

    Raises:
        UserError: No text or vectors, no anchors, or spaces of different dimensions without anchors.
    """
    files = {"source": settings.source_vectors, "target": settings.target_vectors}
    source, target = (
        word_space(context, method, side, file=file, training=settings.training)
        for side, file in files.items()
    )
    pairs = anchor_pairs(context, method, settings.anchors, source, target)
    if pairs is not None:
        maps = align_spaces(
            source,
            target,
            pairs,
            centre=settings.centre,
            normalise=settings.normalise,
            where="dictionary",
        )
        source, target = maps.source.apply(source), maps.target.apply(target)
    elif source.dim != target.dim:
        raise UserError(
            f"the source vectors have {source.dim} dimensions, the target vectors {target.dim}",
            where=f"initialiser {method}",
            fix="with anchors: none both files must come from one space",
        )
    rows = [np.flatnonzero(space.known) for space in (source, target)]
    counts = np.concatenate([source.counts[rows[0]], target.counts[rows[1]]])
    order = np.argsort(-counts, kind="stable")
    texts = [source.names[i] for i in rows[0]] + [target.names[i] for i in rows[1]]
    vectors = np.concatenate([source.vectors[rows[0]], target.vectors[rows[1]]])
    return Words([texts[i] for i in order], vectors[order], order < len(rows[0]))
