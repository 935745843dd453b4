"""Merge: the mean of the two halves of which the new tokenizer makes a token, all the way down."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.tokens import backend_state

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from transformers import PreTrainedTokenizerFast


class MergeSettings(Settings):
    """`merge` has no options."""


@initialisers.register(
    "merge",
    settings=MergeSettings,
    title="Vocabulary Expansion for Low-resource Cross-lingual Transfer",
    arxiv="2406.11477",
    tags=("mix", "convex"),
)
def merge(context: RowContext, settings: MergeSettings) -> RowMix:
    """`E_t[ab] = (e(a) + e(b)) / 2`, e being the old row of a token the source has, else the same again.

    The halves are those of the BPE merge that produces the token; where several merges produce it, their
    mean is taken. A half without merges (a letter, a literal added token) that the source lacks is the mean
    of the source's pieces of its text. Compared with the mean of pieces the rows depend on how the *new*
    tokenizer builds a token, and a part weighs the more the later it was merged. Parts that the source
    cannot write are left out; a token of such parts alone is drawn from N(mu, sd).

    With `H[t, a]` the weight of the half a in t and C the copies and leaves, all rows follow at once from
    `W = C + H W`, which ends after as many rounds as the deepest token has merges on top of each other.

    The released code of LowRes-CVE takes the *input* rows for the nested halves of a head row; here one W
    fills both. "Exploring Design Choices for Building Language-Specific LLMs" (arXiv 2406.14670) compares
    the method as well.

    Returns:
        Convex weights, `(V_target, V_source)`. With `copy_overlap: false` overlapping tokens are mixed from
        their halves, which are still copies where the source has them.

    Raises:
        UserError: The new tokenizer has no merges (Unigram, WordPiece).
    """
    from scipy.sparse import csr_matrix

    halves = _halves(context.target_tokenizer, context.shape[0])
    copies = context.vocab.matched
    leaves = np.diff(halves.indptr) == 0
    ends = leaves.copy()
    ends[copies[:, 0]] = True
    start = _entries(context, copies) + _select(_pieces(context), leaves & ~_marked(copies[:, 0], ends.shape))
    inner = _select(halves, ~ends)
    weights = start
    while True:
        following = csr_matrix(start + inner @ weights)
        if (following != weights).nnz == 0:
            break
        weights = following
    whole = halves @ weights + _select(_pieces(context), leaves)
    found = csr_matrix(_select(csr_matrix(whole), _marked(context.wanted, ends.shape))).tocoo()
    return RowMix.from_entries(context.shape, found.row, found.col, found.data)


def bpe_merges(tokenizer: PreTrainedTokenizerFast) -> tuple[np.ndarray, np.ndarray]:
    """Products `(n,)` and halves `(n, 2)` of all merges of a BPE vocabulary, as ids.

    Raises:
        UserError: For a tokenizer without merges.
    """
    model = backend_state(tokenizer)["model"]
    if model["type"] != "BPE":
        raise UserError(
            f"the initialiser 'merge' follows the merges of a BPE vocabulary, the new tokenizer is a "
            f"{model['type']}",
            where="transplant",
            fix="use mean-of-pieces, which needs no merges",
        )
    vocabulary, prefix = model["vocab"], model.get("continuing_subword_prefix") or ""
    found = []
    for pair in model["merges"]:
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        product = vocabulary.get(left + right.removeprefix(prefix))
        if product is not None and left in vocabulary and right in vocabulary:
            found.append((product, vocabulary[left], vocabulary[right]))
    table = np.array(found, dtype=np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 1:]


def _halves(tokenizer: PreTrainedTokenizerFast, size: int) -> csr_matrix:
    """`H` `(V_target, V_target)`: half of the weight of each merge; rows sum to one or are empty."""
    from scipy.sparse import csr_matrix

    product, parts = bpe_merges(tokenizer)
    share = 0.5 / np.maximum(np.bincount(product, minlength=size), 1)[product]
    return csr_matrix((np.repeat(share, 2), (np.repeat(product, 2), parts.ravel())), shape=(size, size))


def _entries(context: RowContext, pairs: np.ndarray) -> csr_matrix:
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=context.shape)


def _pieces(context: RowContext) -> csr_matrix:
    """The mean of pieces of every target token, `(V_target, V_source)`."""
    from scipy.sparse import csr_matrix

    pieces = context.vocab.pieces_all()
    counts = np.array([len(found) for found in pieces])
    row, column = np.repeat(np.arange(len(pieces)), counts), np.array([p for found in pieces for p in found])
    return csr_matrix((1.0 / counts[row], (row, column.astype(np.int64))), shape=context.shape)


def _marked(ids: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[ids] = True
    return mask


def _select(matrix: csr_matrix, keep: np.ndarray) -> csr_matrix:
    """The matrix with all other rows emptied."""
    from scipy.sparse import csr_matrix, diags_array

    kept = csr_matrix(diags_array(keep.astype(np.float64)) @ matrix)
    kept.eliminate_zeros()
    return kept
