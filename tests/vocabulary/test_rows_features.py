"""Rows from given features: what the map keeps, the norm, and tokens without a feature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from aux_worlds import byte_bpe, context, english
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.rows._base import RowContext
from warmstart.vocabulary.rows.features import FeaturesSettings, features, map_features

CODES = [f"<code {i}>" for i in range(40)]


def world(special: bool = False, width: int = 16) -> RowContext:
    """A text model whose tokenizer is extended by codes."""
    texts = english()[:200]
    source = byte_bpe(texts, 400)
    target: PreTrainedTokenizerFast = byte_bpe(texts, 400)
    target.add_tokens([AddedToken(code, special=special) for code in CODES], special_tokens=special)
    made = context(source, target, dim=width)
    made.rows *= np.random.default_rng(1).uniform(0.5, 2, (len(made.rows), 1)).astype(np.float32)
    return made


def saved(path: Path, names: list[str], vectors: np.ndarray) -> str:
    np.savez(path, words=np.array(names), vectors=vectors.astype(np.float32))
    return str(path)


def filled(made: RowContext, settings: FeaturesSettings) -> np.ndarray:
    mix = features(made, settings).with_copies(made.vocab.overlap).check()
    return mix.apply(
        made.rows.astype(np.float64), rng=np.random.default_rng(0), reference=made.vocab.source_used
    )


@pytest.mark.parametrize(("count", "size", "width"), [(40, 5, 16), (40, 30, 16), (6, 30, 16), (40, 16, 16)])
def test_whitening_gives_every_kept_component_variance_one(count: int, size: int, width: int) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, size)) * np.geomspace(100, 0.1, size) + 7
    mapped = map_features(vectors, width, "pca", np.random.default_rng(1))
    kept = min(size, count - 1, width)
    spread = np.linalg.eigvalsh(np.cov(mapped.T, bias=True))[::-1]
    np.testing.assert_allclose(spread[:kept], 1, atol=1e-6)
    np.testing.assert_allclose(spread[kept:], 0, atol=1e-9)
    centred = vectors - vectors.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    scores = u[:, :kept] * np.sqrt(count) * (s[:kept] > 0)
    np.testing.assert_allclose(mapped @ mapped.T, scores @ scores.T, atol=1e-6)  # the leading components


def test_random_projection_is_the_same_linear_map_for_all() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((40, 9))
    matrix = np.random.default_rng(3).standard_normal((9, 400)) / 3
    mapped = map_features(vectors, 400, "random", np.random.default_rng(3))
    np.testing.assert_allclose(mapped, (vectors - vectors.mean(axis=0)) @ matrix, atol=1e-12)
    ratio = np.linalg.norm(mapped[1:] - mapped[0], axis=1) / np.linalg.norm(vectors[1:] - vectors[0], axis=1)
    assert 0.95 < ratio.mean() / np.sqrt(400 / 9) < 1.05  # distances are kept up to a factor


@pytest.mark.parametrize("how", ["pca", "random"])
def test_rows_have_the_direction_of_the_map_and_the_norm_of_text_rows(tmp_path: Path, how: str) -> None:
    made = world()
    vectors = np.random.default_rng(2).standard_normal((len(CODES), 24))
    settings = FeaturesSettings(file=saved(tmp_path / "f.npz", CODES, vectors), map=how, seed=4)
    rows = filled(made, settings)
    ids = made.target_tokenizer.convert_tokens_to_ids(CODES)
    mapped = map_features(vectors.astype(np.float32), 16, how, np.random.default_rng(4))
    goal = np.linalg.norm(made.rows[made.vocab.source_used].astype(np.float64), axis=1).mean()
    expected = mapped / np.linalg.norm(mapped, axis=1, keepdims=True) * goal
    np.testing.assert_allclose(rows[ids], expected, atol=1e-5)
    pairs = made.vocab.overlap
    assert len(pairs) > 300 and np.array_equal(rows[pairs[:, 0]], made.rows[pairs[:, 1]].astype(np.float64))


def test_tokens_without_features_take_the_nearest_code_or_the_mean_row(tmp_path: Path) -> None:
    made = world()
    rng = np.random.default_rng(5)
    vectors, codes = rng.standard_normal((30, 8)), rng.standard_normal((39, 3))
    file = saved(tmp_path / "f.npz", CODES[:30], vectors)
    ids = np.array(made.target_tokenizer.convert_tokens_to_ids(CODES))
    mean = made.rows[made.vocab.source_used].astype(np.float64).mean(axis=0)
    bare = filled(made, FeaturesSettings(file=file))
    np.testing.assert_allclose(bare[ids[30:]], np.tile(mean, (10, 1)), atol=1e-6)
    book = saved(tmp_path / "c.npz", CODES[:39], codes)
    rows = filled(made, FeaturesSettings(file=file, codebook=book))
    for code in range(30, 39):
        nearest = np.linalg.norm(codes[:30] - codes[code], axis=1).argmin()
        assert np.array_equal(rows[ids[code]], rows[ids[nearest]])
    np.testing.assert_allclose(rows[ids[39]], mean, atol=1e-6)
    mix = features(made, FeaturesSettings(file=file, codebook=book))
    assert isinstance(mix, ComputedMix) and mix.mean[ids[39]] and mix.mean.sum() == 1


def test_unusable_files_end_in_one_sentence(tmp_path: Path) -> None:
    made = world()
    file = saved(tmp_path / "f.npz", ["qqqq", "qq"], np.eye(2))
    with pytest.raises(UserError, match="none of the new tokens"):
        features(made, FeaturesSettings(file=file))
    good = saved(tmp_path / "g.npz", CODES[:5], np.random.default_rng(0).standard_normal((5, 3)))
    with pytest.raises(UserError, match="no token of the codebook has features"):
        features(made, FeaturesSettings(file=good, codebook=saved(tmp_path / "c.npz", CODES[9:], np.ones((31, 2)))))  # noqa: E501  # fmt: skip
    with pytest.raises(UserError, match="only special tokens such as '<code 0>'"):
        features(world(special=True), FeaturesSettings(file=good))
    with pytest.raises(UserError, match="all features are equal"):
        features(made, FeaturesSettings(file=saved(tmp_path / "e.npz", CODES[:3], np.ones((3, 2)))))
    with pytest.raises(UserError, match="the vectors have 3 dimensions, 4 were expected"):
        features(made, FeaturesSettings(file=good, dim=4))
    assert np.array_equal(filled(made, FeaturesSettings(file=good, dim=3)), filled(made, FeaturesSettings(file=good)))  # noqa: E501  # fmt: skip
    with pytest.raises(UserError, match="no such file"):
        features(made, FeaturesSettings(file=str(tmp_path / "none.npz")))
    with pytest.raises(UserError, match="'file' is required"):
        FeaturesSettings.parse({})
