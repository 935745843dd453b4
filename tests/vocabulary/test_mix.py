"""RowMix: exact copies, convex mixtures, honest fallbacks, and the two bounds on new head rows."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_matrix

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.mix import Noise, RowMix, moments, row_norms

finite = st.floats(-5, 5, width=32)


def a_mix(seed: int = 0, target: int = 60, source: int = 40) -> RowMix:
    """Copies (0-9), mixtures (10-39), fallback rows (40-49), mean rows (50-59)."""
    rng = np.random.default_rng(seed)
    entries = [
        (i, int(j), float(w))
        for i in range(10, 40)
        for j, w in zip(rng.integers(0, source, 4), rng.random(4))
    ]
    mix = RowMix.from_entries((target, source), *zip(*entries))
    mix = mix.with_copies(np.c_[np.arange(10), rng.permutation(source)[:10]])
    return mix.with_mean(np.arange(50, target)).check()


def test_kinds_of_rows() -> None:
    mix = a_mix()
    assert mix.copied.sum() == 10 and mix.mixed.sum() == 30
    assert mix.fallback.sum() == 10 and mix.mean.sum() == 10
    total = np.asarray(mix.weights.sum(axis=1)).ravel()
    assert np.allclose(total[:40], 1, atol=1e-12) and (total[40:] == 0).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [1, 7, 1024])
def test_apply_equals_the_dense_product(dtype: type, block: int) -> None:
    mix, rng = a_mix(), np.random.default_rng(1)
    rows = rng.standard_normal((40, 8)).astype(dtype)
    out = mix.apply(rows, rng=np.random.default_rng(2), block=block)
    assert out.dtype == dtype
    dense = mix.weights.toarray() @ rows.astype(np.float64)
    assert np.allclose(out[:40], dense[:40], atol=1e-6 if dtype == np.float32 else 1e-14)
    pairs = {i: mix.weights[i].indices[0] for i in range(10)}
    assert all((out[i] == rows[j]).all() for i, j in pairs.items())  # bit-equal, not close
    assert np.allclose(out[50:], rows.mean(axis=0), atol=1e-6)
    # mixtures lie in the hull: per dimension between the least and the greatest source value
    hull = rows[np.unique(mix.weights[10:40].indices)]
    assert (out[10:40] <= hull.max(axis=0) + 1e-6).all() and (out[10:40] >= hull.min(axis=0) - 1e-6).all()


def test_apply_is_reproducible_and_does_not_touch_the_source() -> None:
    mix, rows = a_mix(), np.random.default_rng(1).standard_normal((40, 8))
    before = rows.copy()
    first, second = (mix.apply(rows, rng=np.random.default_rng(3)) for _ in range(2))
    assert (first == second).all() and (rows == before).all()
    assert not np.allclose(first[40:50], mix.apply(rows, rng=np.random.default_rng(4))[40:50])


def test_moments_of_fallback_rows() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((3000, 5)) * [1, 2, 3, 4, 5] + [10, 0, -10, 100, 1e4]).astype(np.float32)
    mu, sd = moments(rows)
    assert np.allclose(mu, rows.mean(axis=0, dtype=np.float64), rtol=1e-6)
    assert np.allclose(sd, rows.std(axis=0, dtype=np.float64), rtol=1e-4)
    odd = np.arange(1, 3000, 2)
    assert np.allclose(moments(rows, odd)[1], rows[odd].std(axis=0, dtype=np.float64), rtol=1e-4)
    assert np.allclose(
        moments(rows, np.arange(5, 900))[0], rows[5:900].mean(axis=0, dtype=np.float64), rtol=1e-6
    )
    mix = RowMix(csr_matrix((20000, 3000)), np.ones(20000, dtype=bool))
    drawn = mix.apply(rows, rng=rng)
    assert np.allclose(drawn.mean(axis=0), mu, atol=0.15) and np.allclose(drawn.std(axis=0), sd, rtol=0.05)
    flat = mix.apply(rows, rng=rng, noise=Noise("uniform", 0.5))
    assert abs(flat).max() <= 0.5 and np.allclose(flat.std(axis=0), 0.5 / np.sqrt(3), rtol=0.05)
    assert np.allclose(mix.apply(rows, rng=rng, noise=Noise("gaussian", 0.1)).std(axis=0), 0.1, rtol=0.05)
    assert np.allclose(mix.apply(rows, rng=rng, noise="mean"), mu, rtol=1e-5)


def test_unused_source_rows_stay_out_of_the_mean() -> None:
    rows = np.ones((6, 3))
    rows[4:] = 1000.0  # padding junk
    mix = RowMix(csr_matrix((2, 6)), np.array([False, True])).with_mean(np.array([0]))
    assert (mix.apply(rows, rng=np.random.default_rng(0), reference=np.arange(4)) == 1).all()


def test_logits_of_mixed_tokens_are_mixed_logits() -> None:
    mix, rng = a_mix(), np.random.default_rng(5)
    rows, bias, hidden = rng.standard_normal((40, 8)), rng.standard_normal(40), rng.standard_normal(8)
    new = mix.apply(rows, rng=rng) @ hidden + mix.apply_bias(bias)
    expected = mix.weights.toarray() @ (rows @ hidden + bias)
    assert np.allclose(new[:40], expected[:40], atol=1e-12)
    assert np.allclose(mix.apply_bias(bias)[40:], bias.mean())
    narrow = bias.astype(np.float32)
    assert (mix.apply_bias(narrow)[:10] == narrow[mix.weights[:10].indices]).all()


def test_norm_match_scales_mixtures_to_copies_of_the_same_kind() -> None:
    mix, rows = a_mix(), np.random.default_rng(6).standard_normal((40, 8))
    labels = np.arange(60) % 2
    free = mix.apply(rows, rng=np.random.default_rng(0))
    matched = mix.apply(rows, rng=np.random.default_rng(0), norm_match=labels)
    norms = row_norms(matched)
    for label in (0, 1):
        goal = norms[:10][labels[:10] == label].mean()
        assert np.allclose(norms[10:40][labels[10:40] == label], goal)
    directions = matched[10:40] / norms[10:40, None]
    assert np.allclose(directions, free[10:40] / row_norms(free)[10:40, None])
    untouched = np.r_[0:10, 40:60]
    assert (matched[untouched] == free[untouched]).all()
    report = mix.report(rows, free)
    assert report["mixed_norm"] < report["copied_norm"] and report["mixed_rows"] == 30


def test_invalid_mixes_are_refused() -> None:
    weights = csr_matrix(np.array([[0.5, 0.4], [0.0, 0.0]]))
    with pytest.raises(UserError, match=r"row 0 sums to 0\.9"):
        RowMix(weights, np.array([False, True])).check()
    with pytest.raises(UserError, match="rows of the mix are invalid"):
        RowMix(csr_matrix((2, 2)), np.array([False, True])).check()  # empty and not marked
    with pytest.raises(UserError, match="shape"):
        RowMix(weights, np.array([True])).check()
    with pytest.raises(UserError, match="not finite"):
        RowMix(csr_matrix(np.array([[np.nan, 1.0]])), np.array([False])).check()
    with pytest.raises(UserError, match="2 source rows"):
        RowMix(weights, np.array([False, True])).apply(np.zeros((3, 2)), rng=np.random.default_rng(0))


def test_memory_stays_near_the_target() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20_000, 256)).astype(np.float32)  # 20 MB
    target, source = np.repeat(np.arange(20_000), 8), rng.integers(0, 20_000, 160_000)
    mix = RowMix.from_entries((20_000, 20_000), target, source)
    tracemalloc.start()
    out = mix.apply(rows, rng=rng)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert out.nbytes <= peak < 1.35 * out.nbytes


@settings(max_examples=60, deadline=None)
@given(
    rows=hnp.arrays(np.float64, st.tuples(st.integers(2, 12), st.integers(1, 6)), elements=finite),
    hidden=hnp.arrays(np.float64, (6,), elements=finite),
    added=st.integers(1, 9),
)
def test_mean_rows_raise_the_loss_of_old_text_by_at_most_the_jensen_bound(
    rows: np.ndarray, hidden: np.ndarray, added: int
) -> None:
    """Bound (a): m head rows equal to the mean of n old ones cost at most log(1 + m/n) nats."""
    count, width = rows.shape
    mix = RowMix.from_entries((count + added, count), np.arange(count), np.arange(count))
    mix = mix.with_mean(np.arange(count, count + added))
    new = mix.apply(rows, rng=np.random.default_rng(0)) @ hidden[:width]
    old = rows @ hidden[:width]
    cost = np.logaddexp.reduce(new) - np.logaddexp.reduce(old)  # the same for every old token
    assert -1e-9 <= cost <= np.log(1 + added / count) + 1e-9


@settings(max_examples=60, deadline=None)
@given(
    rows=hnp.arrays(np.float64, st.tuples(st.integers(2, 12), st.integers(1, 6)), elements=finite),
    hidden=hnp.arrays(np.float64, (6,), elements=finite),
    weights=hnp.arrays(np.float64, (5, 12), elements=st.floats(0, 1)),
)
def test_rows_in_the_convex_hull_are_never_the_only_best(
    rows: np.ndarray, hidden: np.ndarray, weights: np.ndarray
) -> None:
    """Bound (b): a convex mixture of old head rows is never the unique arg-max."""
    count, width = rows.shape
    weights[:, 0] += 1e-3
    target, source = np.nonzero(weights[:, :count])
    mix = RowMix.from_entries((5, count), target, source, weights[target, source]).check()
    new = mix.apply(rows, rng=np.random.default_rng(0)) @ hidden[:width]
    assert new.max() <= (rows @ hidden[:width]).max() + 1e-9
