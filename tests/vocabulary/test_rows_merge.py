"""Merge against its definition, written as a recursion."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from aux_worlds import byte_bpe, context, english
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from vocab_tokenizers import llama_like, plain

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.rows.merge import MergeSettings, bpe_merges, merge


def byte_world(**options: object) -> RowContext:
    texts = english()[:600]
    return context(byte_bpe(texts[:300], 500), byte_bpe(texts[300:], 700), **options)


def llama_world(**options: object) -> RowContext:
    return context(plain("bpe", 420), llama_like(600, 1), **options)


def expected(made: RowContext) -> dict[int, np.ndarray]:
    """Rows of the wanted tokens by the recursion; tokens without any row are left out."""
    product, parts = bpe_merges(made.target_tokenizer)
    merges: dict[int, list[tuple[int, int]]] = {}
    for whole, (left, right) in zip(product.tolist(), parts.tolist()):
        merges.setdefault(whole, []).append((left, right))
    copies = dict(made.vocab.matched.tolist())

    def built(token: int) -> np.ndarray:
        if token in merges:
            return np.mean([(row(a) + row(b)) / 2 for a, b in merges[token]], axis=0)
        pieces = made.vocab.pieces(token)
        weights = np.zeros(made.shape[1])
        np.add.at(weights, pieces, 1 / max(1, len(pieces)))
        return weights

    @cache
    def row(token: int) -> np.ndarray:
        return np.eye(made.shape[1])[copies[token]] if token in copies else built(token)

    found = {int(token): built(int(token)) for token in made.wanted}
    return {token: weights / weights.sum() for token, weights in found.items() if weights.any()}


@pytest.mark.parametrize("world", [byte_world, llama_world])
@pytest.mark.parametrize("copy_overlap", [True, False])
def test_rows_equal_the_recursion(world, copy_overlap: bool) -> None:  # type: ignore[no-untyped-def]
    made = world(copy_overlap=copy_overlap)
    mix = merge(made, MergeSettings()).check()
    rows = expected(made)
    assert set(np.flatnonzero(~mix.fallback)) == rows.keys() and len(rows) > 50
    for token, weights in rows.items():
        np.testing.assert_allclose(mix.weights[token].toarray()[0], weights, atol=1e-14)
    assert mix.weights.data.min() > 0
    deep = [w for w in rows.values() if ((w > 0) & (w < 0.25)).any()]
    assert deep, "no token has merges on top of merges"


def test_a_source_that_shares_only_the_letters_is_mixed_down_to_them() -> None:
    """Weights 1/2 and 1/4 of a token (ab)c show that the tree is followed, not the list of pieces."""
    made = byte_world(copy_overlap=False)
    product, parts = bpe_merges(made.target_tokenizer)
    tree = dict(zip(product.tolist(), parts.tolist()))
    made.vocab.overlap = made.vocab.overlap[[t not in tree for t in made.vocab.overlap[:, 0].tolist()]]
    three = next(t for t, (a, b) in tree.items() if a in tree and b not in tree and tree[a][0] not in tree)
    mix = merge(made, MergeSettings())
    letters = [tree[tree[three][0]][0], tree[tree[three][0]][1], tree[three][1]]
    if len(set(letters)) == 3:
        own = dict(made.vocab.overlap.tolist())
        weights = mix.weights[three].toarray()[0][[own[i] for i in letters]]
        assert weights.tolist() == [0.25, 0.25, 0.5]
    assert len(mix.weights[three].data) == len(set(letters))


def by_hand(vocabulary: str, merges: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    table = {string: index for index, string in enumerate(vocabulary.split())}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(table, merges)))


def test_several_merges_are_averaged_and_letters_nobody_can_write_left_out() -> None:
    target = by_hand("a b c d ab bc abc", [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")])
    made = context(by_hand("a b", []), target)
    mix = merge(made, MergeSettings()).check()
    rows = [mix.weights[index].toarray()[0].tolist() for index in (4, 5, 6)]
    assert rows == [[0.5, 0.5], [0, 1], [pytest.approx(0.6), pytest.approx(0.4)]]  # c has no row
    assert np.flatnonzero(mix.fallback).tolist() == [0, 1, 2, 3]  # a and b are copied afterwards


def test_copied_rows_are_bit_equal() -> None:
    made = byte_world()
    pairs = made.vocab.overlap
    filled = merge(made, MergeSettings()).with_copies(pairs).apply(made.rows, rng=np.random.default_rng(0))
    assert len(pairs) > 200 and np.array_equal(filled[pairs[:, 0]], made.rows[pairs[:, 1]])


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_a_vocabulary_without_merges_is_refused_in_one_sentence(kind: str) -> None:
    with pytest.raises(UserError, match="mean-of-pieces"):
        merge(context(plain("bpe"), plain(kind, 300)), MergeSettings())


def test_it_is_registered_with_its_source() -> None:
    entry = initialisers.get("merge")
    assert entry.arxiv == "2406.11477" and {"mix", "convex"} <= entry.tags
