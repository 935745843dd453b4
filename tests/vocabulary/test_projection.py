"""The projection recovers a planted linear map, for input rows and for a head of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from aux_worlds import byte_bpe, context, english

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.rows._base import RowContext
from warmstart.vocabulary.rows.projection import ProjectionSettings, projection


@pytest.fixture
def world(tmp_path: Path) -> tuple[RowContext, np.ndarray, str]:
    texts = english()[:600]
    made = context(byte_bpe(texts[:300], 500), byte_bpe(texts[300:], 600))
    vectors = np.random.default_rng(3).standard_normal((made.shape[0], 7)).astype(np.float32)
    names = [token.string for token in made.vocab.target]
    rare = made.vocab.new[:4]
    vectors[rare] = 0
    np.savez(tmp_path / "v.npz", words=np.array(names), vectors=vectors)
    return made, vectors, str(tmp_path / "v.npz")


def test_a_planted_map_is_recovered_for_every_matrix(world: tuple[RowContext, np.ndarray, str]) -> None:
    made, vectors, file = world
    mix = projection(made, ProjectionSettings(vectors=file, ridge=0)).check()
    overlap = made.vocab.overlap
    whole = mix.with_copies(overlap)
    assert isinstance(whole, ComputedMix)
    whole.check()
    rng = np.random.default_rng(4)
    for width in (16, 5):  # input rows, and an untied head of another width
        plan, offset = rng.standard_normal((7, width)), rng.standard_normal(width)
        rows = rng.standard_normal((made.shape[1], width))
        rows[overlap[:, 1]] = vectors[overlap[:, 0]] @ plan + offset
        filled = whole.apply(rows, rng=np.random.default_rng(0))
        new = made.vocab.new[4:]
        np.testing.assert_allclose(filled[new], vectors[new] @ plan + offset, atol=1e-6)
        assert np.array_equal(filled[overlap[:, 0]], rows[overlap[:, 1]])
        assert whole.fallback[made.vocab.new[:4]].all()


def test_ridge_equals_its_closed_form_and_spares_the_intercept(
    world: tuple[RowContext, np.ndarray, str],
) -> None:
    made, vectors, file = world
    mix = projection(made, ProjectionSettings(vectors=file, ridge=0.5))
    overlap = made.vocab.overlap
    x, y = vectors[overlap[:, 0]].astype(np.float64), made.rows[overlap[:, 1]].astype(np.float64)
    c, m = x - x.mean(axis=0), y.mean(axis=0)
    slope = np.linalg.solve(c.T @ c + 0.5 * np.square(c).mean() * len(c) * np.eye(7), c.T @ (y - m))
    new = made.vocab.new[4:]
    expected = (vectors[new] - x.mean(axis=0)) @ slope + m
    filled = mix.apply(made.rows, rng=np.random.default_rng(0))
    np.testing.assert_allclose(filled[new], expected, atol=1e-5)
    shifted = mix.apply(made.rows + np.float32(3), rng=np.random.default_rng(0))
    np.testing.assert_allclose(shifted[new], expected + 3, atol=1e-5)


def test_bias_of_projected_rows_is_the_mean_and_norms_can_be_matched(
    world: tuple[RowContext, np.ndarray, str],
) -> None:
    made, _, file = world
    mix = projection(made, ProjectionSettings(vectors=file)).with_copies(made.vocab.overlap)
    bias = np.random.default_rng(5).standard_normal(made.shape[1])
    filled = mix.apply_bias(bias)
    np.testing.assert_allclose(filled[made.vocab.new], bias.mean())
    assert np.array_equal(filled[made.vocab.overlap[:, 0]], bias[made.vocab.overlap[:, 1]])
    labels = np.zeros(made.shape[0])
    rows = mix.apply(made.rows, rng=np.random.default_rng(0), norm_match=labels)
    goal = np.linalg.norm(made.rows[made.vocab.overlap[:, 1]], axis=1).mean()
    np.testing.assert_allclose(np.linalg.norm(rows[made.vocab.new[4:]], axis=1), goal, rtol=1e-5)


def test_it_needs_text_or_vectors_and_anchors(
    world: tuple[RowContext, np.ndarray, str], tmp_path: Path
) -> None:
    made, _, _ = world
    with pytest.raises(UserError, match="projection"):
        projection(made, ProjectionSettings())
    names = [made.vocab.target[int(i)].string for i in made.vocab.new]
    np.savez(tmp_path / "w.npz", words=np.array(names), vectors=np.ones((len(names), 2)))
    with pytest.raises(UserError, match="no token that both vocabularies share"):
        projection(made, ProjectionSettings(vectors=str(tmp_path / "w.npz")))
