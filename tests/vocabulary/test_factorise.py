"""Factorised embeddings: exact at full rank, optimal below, and mixing commutes with them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.factorise import energy_kept, factorise
from warmstart.vocabulary.mix import RowMix


def matrix(seed: int, count: int = 60, width: int = 9) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((count, width))
        * np.geomspace(30, 0.01, width)
        @ rng.standard_normal((width,) * 2)
    )


@pytest.mark.parametrize("split", ["balanced", "raw"])
@pytest.mark.parametrize("count", [60, 9, 5])
def test_full_rank_reproduces_the_matrix(split: str, count: int) -> None:
    rows = matrix(0, count)
    factors = factorise(rows, 9, split=split, block=7)
    np.testing.assert_allclose(factors.rows(), rows, atol=1e-12 * np.abs(rows).max())
    np.testing.assert_allclose(factors.rows(np.array([3, 1])), rows[[3, 1]], atol=1e-9)
    narrow = factorise(rows.astype(np.float32), 9, split=split)
    assert narrow.coordinates.dtype == narrow.primitives.dtype == np.float32
    np.testing.assert_allclose(narrow.rows(), rows, atol=1e-5 * np.abs(rows).max())


@given(st.integers(0, 10**6), st.integers(1, 9))
@limits(max_examples=25, deadline=None)
def test_a_lower_rank_is_the_best_one_and_balanced(seed: int, rank: int) -> None:
    rows = matrix(seed)
    u, s, v = np.linalg.svd(rows, full_matrices=False)
    best = (u[:, :rank] * s[:rank]) @ v[:rank]
    factors = factorise(rows, rank)
    np.testing.assert_allclose(factors.rows(), best, atol=1e-7 * s[0])
    for product in (factors.coordinates.T @ factors.coordinates, factors.primitives @ factors.primitives.T):
        np.testing.assert_allclose(product, np.diag(s[:rank]), atol=1e-6 * s[0])
    raw = factorise(rows, rank, split="raw")
    np.testing.assert_allclose(raw.coordinates.T @ raw.coordinates, np.eye(rank), atol=1e-4)


@given(st.integers(0, 10**6), st.integers(1, 9))
@limits(max_examples=25, deadline=None)
def test_mixing_coordinates_is_mixing_rows(seed: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    rows = matrix(seed)
    entries = rng.integers(0, 40, 120), rng.integers(0, 60, 120), rng.uniform(0, 1, 120)
    mix = RowMix.from_entries((40, 60), *entries)
    mix = mix.with_copies(np.array([[0, 5], [7, 7]])).with_mean(np.flatnonzero(mix.fallback))
    factors = factorise(rows, rank)
    narrow = mix.apply(factors.coordinates, rng=np.random.default_rng(0)) @ factors.primitives
    wide = mix.apply(factors.rows(), rng=np.random.default_rng(0))
    np.testing.assert_allclose(narrow, wide, atol=1e-10 * np.abs(rows).max())
    if rank == 9:
        np.testing.assert_allclose(
            narrow, mix.apply(rows, rng=np.random.default_rng(0)), atol=1e-10 * np.abs(rows).max()
        )


@pytest.mark.parametrize("rank", [0, 10])
def test_an_impossible_rank_is_refused(rank: int) -> None:
    with pytest.raises(UserError, match="choose 1 to 9"):
        factorise(matrix(0), rank)


@given(st.integers(0, 10**6), st.integers(1, 9))
@limits(max_examples=25, deadline=None)
def test_the_kept_energy_is_that_of_the_singular_values(seed: int, rank: int) -> None:
    rows = matrix(seed)
    values = np.linalg.svd(rows, compute_uv=False) ** 2
    for split in ("balanced", "raw"):
        found = energy_kept(rows, factorise(rows, rank, split=split), block=7)
        assert found == pytest.approx(values[:rank].sum() / values.sum(), abs=1e-7)
    assert energy_kept(0 * rows, factorise(0 * rows, rank)) == 1
