"""Tiled neighbours and sparsemax against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from warmstart.vocabulary.aux_space import nearest_by_cosine, sparsemax, sparsemax_by_cosine, tiles


def vectors(count: int, dim: int, seed: int) -> np.ndarray:
    """Clustered vectors with a common component, as trained ones have."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((40, dim))
    return (centres[rng.integers(0, 40, count)] + 0.8 * rng.standard_normal((count, dim)) + 0.4).astype(
        np.float32
    )


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    a, b = (
        m.astype(np.float64) / np.linalg.norm(m.astype(np.float64), axis=1, keepdims=True)
        for m in (left, right)
    )
    return a @ b.T


def simplex_projection(scores: np.ndarray) -> np.ndarray:
    """Another way: the threshold at which the excess sums to one, by bisection."""
    low, high = scores.max() - 1.0, scores.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(scores - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(scores - high, 0)


@given(hnp.arrays(np.float64, st.integers(1, 12), elements=st.floats(-3, 3)))
@settings(max_examples=200, deadline=None)
def test_sparsemax_is_the_projection_onto_the_simplex(scores: np.ndarray) -> None:
    weights = sparsemax(scores[None])[0]
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(weights, simplex_projection(scores), atol=1e-9)


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 70), st.sampled_from([0.2, 1.0, 8.0]))
@settings(max_examples=60, deadline=None)
def test_tiled_sparsemax_equals_brute_force(seed: int, queries: int, keys: int, scale: float) -> None:
    q, k = vectors(queries, 5, seed), vectors(keys, 5, seed + 1)
    got = sparsemax_by_cosine(q, k, scale).toarray()
    np.testing.assert_allclose(got, sparsemax(scale * cosines(q, k)), atol=3e-6 * max(1, scale))
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-12)


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 70), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_nearest_equals_brute_force(seed: int, queries: int, keys: int, k: int) -> None:
    q, t = vectors(queries, 5, seed), vectors(keys, 5, seed + 1)
    index, cosine = nearest_by_cosine(q, t, k)
    exact = cosines(q, t)
    k = min(k, keys)
    np.testing.assert_allclose(cosine, -np.sort(-exact, axis=1)[:, :k], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(exact, index, axis=1), cosine, atol=1e-6)
    assert all(len(set(row)) == k for row in index.tolist())


@pytest.mark.parametrize("small", [False, True])
def test_many_tiles_equal_brute_force_and_do_not_depend_on_the_arithmetic(
    small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, t = vectors(1100, 24, 0), vectors(9_003, 24, 1)  # several tiles both ways, the last one ragged
    monkeypatch.setattr(tiles, "has_int8", lambda: small)
    index, cosine = nearest_by_cosine(q, t, 10)
    exact = cosines(q, t)
    np.testing.assert_allclose(cosine, -np.sort(-exact, axis=1)[:, :10], atol=1e-6)
    mix = sparsemax_by_cosine(q[:300], t)
    np.testing.assert_allclose(mix.toarray(), sparsemax(exact[:300]), atol=3e-6)

    monkeypatch.setattr(tiles, "has_int8", lambda: not small)
    monkeypatch.setattr(tiles, "KEY_TILE", 2500)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        other = nearest_by_cosine(q, t, 10)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(index, other[0])
    assert np.array_equal(cosine, other[1])
    again = sparsemax_by_cosine(q[:300], t)
    assert np.array_equal(mix.indices, again.indices)
    assert np.array_equal(mix.data, again.data)


def test_equal_cosines_are_ordered_by_index() -> None:
    keys = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    index, _ = nearest_by_cosine(np.eye(3, dtype=np.float32)[[1]], keys, 3)
    assert index.tolist() == [[4, 5, 6]]


def test_zero_vectors_and_unequal_dimensions_are_refused() -> None:
    good = vectors(4, 5, 0)
    with pytest.raises(ValueError, match="zero vector"):
        nearest_by_cosine(np.zeros((1, 5), np.float32), good, 2)
    with pytest.raises(ValueError, match="zero vector"):
        sparsemax_by_cosine(good, np.concatenate([good, np.zeros((1, 5), np.float32)]))
    with pytest.raises(ValueError, match="dimensions"):
        nearest_by_cosine(good, vectors(4, 6, 0), 2)
    with pytest.raises(ValueError, match="finite"):
        nearest_by_cosine(good, np.full((2, 5), np.nan), 2)


def test_no_queries_give_empty_results() -> None:
    keys = vectors(4, 5, 0)
    assert nearest_by_cosine(keys[:0], keys, 2)[0].shape == (0, 2)
    assert sparsemax_by_cosine(keys[:0], keys).shape == (0, 4)
