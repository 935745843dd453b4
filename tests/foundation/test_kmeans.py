"""k-means: a fixed point of its own rule, found again for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from warmstart.foundation.errors import UserError
from warmstart.foundation.kmeans import kmeans, nearest_centre


def test_each_centre_is_the_mean_of_the_points_nearest_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warmstart.foundation.kmeans._CHUNK", 7)
    points = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    centres = kmeans(points, 9, seed=1, rounds=200)
    gaps = np.square(points[:, None].astype(np.float64) - centres).sum(2)
    label, distance = nearest_centre(points, centres)
    assert np.array_equal(label, gaps.argmin(1))
    np.testing.assert_allclose(distance, gaps.min(1), atol=1e-12)
    means = np.stack([points[label == k].astype(np.float64).mean(0) for k in range(9)])
    np.testing.assert_allclose(centres, means, atol=1e-12)
    assert np.array_equal(centres, kmeans(points, 9, seed=1, rounds=200))
    assert not np.array_equal(centres, kmeans(points, 9, seed=2, rounds=200))


def test_groups_far_apart_are_found_and_repeated_points_do_not_hide_others() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 6, 300)
    points = 100 * rng.normal(size=(6, 4))[truth] + rng.normal(size=(300, 4))
    label, _ = nearest_centre(points, kmeans(points, 6))
    assert len({(a, b) for a, b in zip(truth.tolist(), label.tolist())}) == 6
    few = np.repeat([[0.0], [1.0], [5.0]], [90, 5, 1], axis=0)
    assert sorted(kmeans(few, 3)[:, 0]) == [0, 1, 5]
    with pytest.raises(UserError, match="3 different vectors cannot make 4 clusters"):
        kmeans(few, 4)
    with pytest.raises(UserError, match="0 different vectors"):
        kmeans(np.zeros((0, 2)), 2)
