"""Multivariate: the distribution that is drawn from is the one that was promised."""

from __future__ import annotations

import numpy as np
import pytest
from aux_worlds import byte_bpe, context, english

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.rows._base import RowContext
from warmstart.vocabulary.rows.multivariate import (
    MultivariateSettings,
    mean_and_covariance,
    multivariate,
)


@pytest.fixture(scope="module")
def world() -> RowContext:
    texts = english()[:400]
    return context(byte_bpe(texts[:200], 400), byte_bpe(texts[200:], 600), dim=5)


def drawn(made: RowContext, rows: np.ndarray, scale: float, seed: int = 0) -> np.ndarray:
    mix = multivariate(made, MultivariateSettings(scale=scale)).check()
    assert isinstance(mix, ComputedMix) and np.array_equal(np.flatnonzero(mix.computed), made.vocab.new)
    used = made.vocab.source_used
    return mix.compute(made.vocab.new, rows, which="input", reference=used, rng=np.random.default_rng(seed))


def test_moments_in_one_pass_equal_numpy() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((9000, 6)) @ rng.standard_normal((6, 6)) + 1e4
    for reference in (None, np.arange(3, 9000, 2)):
        kept = rows if reference is None else rows[reference]
        mean, covariance = mean_and_covariance(rows, reference)
        np.testing.assert_allclose(mean, kept.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(covariance, np.cov(kept.T, bias=True), atol=1e-7)


@pytest.mark.parametrize("scale", [1e-5, 1.0])
def test_draws_are_a_linear_image_of_standard_normal_ones_with_the_right_covariance(
    world: RowContext, scale: float
) -> None:
    """Exact: undoing the root of the covariance by its Mahalanobis form gives the noise's own norms."""
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((world.shape[1], 5)) @ rng.standard_normal((5, 5)) + 3
    made = drawn(world, rows, scale)
    mean, covariance = mean_and_covariance(rows, world.vocab.source_used)
    noise = np.random.default_rng(0).standard_normal((len(made), 5))
    distance = np.einsum("ij,jk,ik->i", made - mean, np.linalg.inv(scale * covariance), made - mean)
    np.testing.assert_allclose(distance, np.square(noise).sum(axis=1), rtol=1e-6)
    if scale == 1.0:  # and the sample covariance is near: 1 / sqrt(n) for these few rows
        sample = np.cov(made.T, bias=True)
        assert np.abs(sample - covariance).max() < 0.35 * np.abs(covariance).max()


def test_scale_zero_is_the_mean_of_the_used_rows_and_padding_does_not_count(world: RowContext) -> None:
    rows = np.random.default_rng(2).standard_normal((world.shape[1], 5))
    used = world.vocab.source_used
    mean = np.broadcast_to(rows[used].mean(axis=0), (len(world.vocab.new), 5))
    np.testing.assert_allclose(drawn(world, rows, 0.0), mean, atol=1e-14)
    few = np.arange(10)
    mix = multivariate(world, MultivariateSettings(scale=0))
    filled = mix.apply(rows, rng=np.random.default_rng(0), reference=few)
    np.testing.assert_allclose(filled[world.vocab.new[0]], rows[few].mean(axis=0), atol=1e-14)


def test_fewer_rows_than_dimensions_draw_within_their_span(world: RowContext) -> None:
    rows = np.zeros((world.shape[1], 5))
    rows[:, :2] = np.random.default_rng(3).standard_normal((world.shape[1], 2))
    made = drawn(world, rows, 1.0)
    assert np.abs(made[:, 2:]).max() < 1e-6 and made[:, :2].std() > 0.5


def test_copies_win_and_the_bias_is_the_mean(world: RowContext) -> None:
    mix = multivariate(world, MultivariateSettings()).with_copies(world.vocab.overlap)
    assert isinstance(mix, ComputedMix)
    pairs = world.vocab.overlap
    filled = mix.check().apply(world.rows, rng=np.random.default_rng(0))
    assert np.array_equal(filled[pairs[:, 0]], world.rows[pairs[:, 1]])
    bias = np.random.default_rng(5).standard_normal(world.shape[1])
    np.testing.assert_allclose(mix.apply_bias(bias)[world.vocab.new], bias.mean())
    other = mix.apply(world.rows, rng=np.random.default_rng(1))
    assert (filled[world.vocab.new] != other[world.vocab.new]).any()


def test_a_negative_scale_is_refused() -> None:
    with pytest.raises(UserError, match="scale"):
        MultivariateSettings.parse({"scale": -1})
