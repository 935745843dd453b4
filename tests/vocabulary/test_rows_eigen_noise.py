"""EigenNoise against the formula on a dense matrix."""

from __future__ import annotations

import numpy as np
import pytest
from aux_worlds import Texts, byte_bpe, context, english

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.mix import moments
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.rows.eigen_noise import (
    EigenNoiseSettings,
    eigen_noise,
    frequency_order,
    log_cooccurrence,
    rank_vectors,
)


def dense(size: int, window: int) -> np.ndarray:
    rank = np.arange(1, size + 1)
    x = 2 * window * size / (np.outer(rank, rank) * (1 / rank).sum())
    return np.log(np.maximum(1, x))


@pytest.mark.parametrize(("size", "window"), [(1, 5), (2, 1), (50, 5), (700, 2), (1500, 5)])
def test_the_sparse_matrix_is_the_formula(size: int, window: int) -> None:
    np.testing.assert_allclose(
        log_cooccurrence(size, window=window).toarray(), dense(size, window), atol=1e-12
    )


def test_the_matrix_has_the_rank_that_flooring_gives_it_and_stays_sparse() -> None:
    value = np.abs(np.linalg.eigvalsh(log_cooccurrence(2000).toarray()))
    assert 80 < (value > 1e-10 * value.max()).sum() <= 98  # twice the root of c; without flooring two
    assert rank_vectors(2000, 150).any(axis=0).sum() <= 98
    assert log_cooccurrence(250_000).nnz < 5_000_000


@pytest.mark.parametrize("size", [2, 60, 1500])
def test_vectors_rebuild_the_matrix_up_to_signs(size: int) -> None:
    """The block structure against numpy's decomposition of the whole matrix."""
    width = min(size, 20) if size < 1500 else 70
    value, vector = np.linalg.eigh(dense(size, 5))
    best = np.argsort(-np.abs(value))[:width]
    expected = (vector[:, best] * np.abs(value[best])) @ vector[:, best].T
    found = rank_vectors(size, width)
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-8)
    peaks = found[np.abs(found).argmax(axis=0), np.arange(width)]
    assert (peaks > 0).all()
    assert np.array_equal(found, rank_vectors(size, width))


def test_more_dimensions_than_the_matrix_has_stay_zero() -> None:
    found = rank_vectors(12, 30)
    assert found.shape == (12, 30) and not found[:, 12:].any()
    np.testing.assert_allclose(np.square(found).sum(), np.abs(np.linalg.eigvalsh(dense(12, 5))).sum())


@pytest.fixture(scope="module")
def world() -> RowContext:
    texts = english()[:400]
    made = context(
        byte_bpe(texts[:200], 400), byte_bpe(texts[200:], 600), corpus=Texts(texts[200:]), copy_overlap=False
    )
    made.rows = made.rows * 3 + 2
    return made


@pytest.mark.parametrize("rotate", [True, False])
def test_rows_follow_ranks_with_the_moments_of_the_source(world: RowContext, rotate: bool) -> None:
    mix = eigen_noise(world, EigenNoiseSettings(rotate=rotate)).check()
    assert isinstance(mix, ComputedMix)
    ids, used = world.vocab.text_ids, world.vocab.source_used
    rows = world.rows.astype(np.float64)
    got = mix.compute(ids, rows, which="input", reference=used, rng=np.random.default_rng(5))
    counts = np.zeros(world.shape[0])
    for text in world.corpus.texts:  # type: ignore[union-attr]
        np.add.at(counts, world.target_tokenizer(text)["input_ids"], 1)
    order = sorted(ids.tolist(), key=lambda token: (-counts[token], token))
    assert frequency_order(world, EigenNoiseSettings()).tolist() == order
    vectors = rank_vectors(len(ids), 16)
    centred = vectors - vectors.mean(axis=0)
    mu, sd = moments(rows, used)
    scale = np.sqrt(np.square(sd).mean() / np.square(centred).mean())
    expected = scale * centred[[order.index(token) for token in ids]]
    moved = got - mu
    np.testing.assert_allclose(moved @ moved.T, expected @ expected.T, atol=1e-8)  # a turn at most
    assert np.allclose(moved, expected) is not rotate
    np.testing.assert_allclose(got.mean(axis=0), mu, atol=1e-9)
    np.testing.assert_allclose(np.square(moved).mean(), np.square(sd).mean())


def test_ranks_without_text_are_ids_and_text_can_be_demanded(world: RowContext) -> None:
    bare = context(world.source_tokenizer, world.target_tokenizer)
    assert np.array_equal(frequency_order(bare, EigenNoiseSettings()), np.sort(bare.vocab.text_ids))
    with pytest.raises(UserError, match="'eigen-noise' needs a corpus"):
        eigen_noise(bare, EigenNoiseSettings(ranks="corpus"))
    few = EigenNoiseSettings(max_bytes=1)
    assert not np.array_equal(frequency_order(world, few), frequency_order(world, EigenNoiseSettings()))


def test_copies_can_be_asked_for(world: RowContext) -> None:
    assert "all-rows" in initialisers.get("eigen-noise").tags
    pairs = world.vocab.overlap
    mix = eigen_noise(context(world.source_tokenizer, world.target_tokenizer), EigenNoiseSettings())
    filled = mix.with_copies(pairs).apply(world.rows, rng=np.random.default_rng(0))
    assert np.array_equal(filled[pairs[:, 0]], world.rows[pairs[:, 1]])
