"""CLP-Transfer against its definition, written as a loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from aux_worlds import byte_bpe, context, english
from vocab_donors import save_donor

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.rows._base import RowContext
from warmstart.vocabulary.rows.clp import ClpSettings, clp

WIDTH = 8


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[RowContext, np.ndarray, str]:
    texts = english()[:500]
    made = context(byte_bpe(texts[:250], 500), byte_bpe(texts[250:], 600))
    rows = np.random.default_rng(1).standard_normal((made.shape[0], WIDTH)).astype(np.float32)
    rows[made.vocab.new[:3]] = 0
    rows[made.vocab.overlap[:2, 0]] = 0
    return made, rows, save_donor(tmp_path_factory.mktemp("helper") / "h", made.target_tokenizer, rows)


def filled(made: RowContext, settings: ClpSettings) -> tuple[np.ndarray, np.ndarray]:
    mix = clp(made, settings).check()
    return mix.apply(made.rows, rng=np.random.default_rng(0)), mix.fallback


@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize("weights", ["cosine", "softmax"])
def test_rows_equal_the_definition(
    world: tuple[RowContext, np.ndarray, str], weights: str, top_k: int | None
) -> None:
    made, helper, name = world
    settings = ClpSettings(helper=name, weights=weights, top_k=top_k, temperature=0.3)
    rows, drawn = filled(made, settings)
    overlap = made.vocab.overlap[2:]
    assert (drawn[made.vocab.new[:3]]).all() and not drawn[made.vocab.new[3:]].any()
    negative = 0
    for token in made.vocab.new[3:]:
        cosine = np.array(
            [
                helper[token] @ helper[t] / np.linalg.norm(helper[token]) / np.linalg.norm(helper[t])
                for t, _ in overlap
            ]
        )
        best = np.argsort(-cosine, kind="stable")[:top_k]
        weight = np.exp(cosine[best] / 0.3) if weights == "softmax" else np.maximum(cosine[best], 0)
        expected = (weight / weight.sum()) @ made.rows[overlap[best, 1]]
        np.testing.assert_allclose(rows[token], expected, atol=2e-6)
        negative += int((cosine < 0).sum())
    assert negative > 100  # clamping mattered


def test_copied_rows_are_bit_equal_and_new_ones_within_the_hull(
    world: tuple[RowContext, np.ndarray, str],
) -> None:
    made, _, name = world
    mix = clp(made, ClpSettings(helper=name)).with_copies(made.vocab.overlap).check()
    rows = mix.apply(made.rows, rng=np.random.default_rng(0))
    pairs = made.vocab.overlap
    assert np.array_equal(rows[pairs[:, 0]], made.rows[pairs[:, 1]])
    inside = rows[made.vocab.new[3:]]
    anchors = made.rows[pairs[2:, 1]]
    assert (inside <= anchors.max(axis=0) + 1e-6).all() and (inside >= anchors.min(axis=0) - 1e-6).all()


def test_without_a_positive_cosine_the_mean_of_the_overlap_is_taken(tmp_path: Path) -> None:
    texts = english()[:200]
    made = context(byte_bpe(texts[:100], 400), byte_bpe(texts[100:], 420))
    rows = np.ones((made.shape[0], WIDTH), dtype=np.float32)
    rows[made.vocab.new] = -1
    settings = ClpSettings(helper=save_donor(tmp_path / "h", made.target_tokenizer, rows))
    got, _ = filled(made, settings)
    mean = made.rows[made.vocab.overlap[:, 1]].mean(axis=0)
    np.testing.assert_allclose(got[made.vocab.new], np.tile(mean, (len(made.vocab.new), 1)), atol=1e-6)
    sharp = clp(made, ClpSettings(helper=settings.helper, top_k=1))
    assert not isinstance(sharp, ComputedMix) and sharp.weights[made.vocab.new].nnz == len(made.vocab.new)


def test_every_overlapping_token_can_be_mixed_and_width_does_not_matter(
    world: tuple[RowContext, np.ndarray, str],
) -> None:
    made, _, name = world
    free = context(made.source_tokenizer, made.target_tokenizer, copy_overlap=False, dim=3)
    mix = clp(free, ClpSettings(helper=name))
    assert isinstance(mix, ComputedMix)
    assert mix.computed.sum() == len(free.vocab.text_ids) - 5
    assert mix.apply(free.rows, rng=np.random.default_rng(0)).shape == (free.shape[0], 3)


def test_another_tokenizer_or_a_missing_helper_ends_in_one_sentence(
    world: tuple[RowContext, np.ndarray, str], tmp_path: Path
) -> None:
    made, helper, _ = world
    other = save_donor(tmp_path / "o", made.source_tokenizer, helper[: made.shape[1]])
    with pytest.raises(UserError, match="the tokenizer of the helper is not the new tokenizer"):
        clp(made, ClpSettings(helper=other))
    with pytest.raises(UserError, match="does not exist"):
        clp(made, ClpSettings(helper=str(tmp_path / "nothing")))
    with pytest.raises(UserError, match="'helper' is required"):
        ClpSettings.parse({})
