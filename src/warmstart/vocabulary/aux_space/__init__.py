"""AuxSpace: external vectors of words and tokens, by which rows of two vocabularies become comparable.

Vectors are trained on the user's own text ([`train`][warmstart.vocabulary.aux_space.train]) or loaded
([`formats`][warmstart.vocabulary.aux_space.formats]), composed from words to subwords
([`compose`][warmstart.vocabulary.aux_space.compose]), brought into one space
([`procrustes`][warmstart.vocabulary.aux_space.procrustes]) and compared
([`neighbours`][warmstart.vocabulary.aux_space.neighbours]).
"""

from warmstart.vocabulary.aux_space.compose import subword_space
from warmstart.vocabulary.aux_space.formats import load_vectors
from warmstart.vocabulary.aux_space.neighbours import nearest_by_cosine, sparsemax, sparsemax_by_cosine
from warmstart.vocabulary.aux_space.procrustes import (
    Alignment,
    SpaceMap,
    align_spaces,
    dictionary_hits,
    procrustes,
)
from warmstart.vocabulary.aux_space.space import AuxSpace, NgramTable
from warmstart.vocabulary.aux_space.train import StaticSettings, train_space

__all__ = [
    "Alignment",
    "AuxSpace",
    "NgramTable",
    "SpaceMap",
    "StaticSettings",
    "align_spaces",
    "dictionary_hits",
    "load_vectors",
    "nearest_by_cosine",
    "procrustes",
    "sparsemax",
    "sparsemax_by_cosine",
    "subword_space",
    "train_space",
]
