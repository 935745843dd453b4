"""FOCUS against its definition, written as a loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from aux_worlds import Texts, byte_bpe, context, english
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.aux_space import StaticSettings, sparsemax, train_space
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.rows.focus import FocusSettings, focus

QUICK = StaticSettings(dim=12, epochs=2, min_count=3, buckets=500)


@pytest.fixture(scope="module")
def world() -> RowContext:
    texts = english()[:900]
    source, target = byte_bpe(texts[:450], 700), byte_bpe(texts[450:], 800)
    return context(source, target, corpus=Texts(texts[450:]))


@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_rows_equal_the_definition(world: RowContext, scale: float) -> None:
    mix = focus(world, FocusSettings(training=QUICK, scale=scale)).check()
    space = train_space(world.corpus, QUICK, world.target_tokenizer)
    unit = space.vectors / np.maximum(np.linalg.norm(space.vectors, axis=1, keepdims=True), 1e-12)
    overlap = [(t, s) for t, s in world.vocab.overlap if space.known[t]]
    filled = mix.apply(world.rows, rng=np.random.default_rng(0))
    for new in world.vocab.new:
        if not space.known[new]:
            assert mix.fallback[new]
            continue
        weights = sparsemax(scale * (unit[[t for t, _ in overlap]] @ unit[new])[None])[0]
        expected = weights @ world.rows[[s for _, s in overlap]]
        np.testing.assert_allclose(filled[new], expected, atol=2e-5 * scale)
    assert (~mix.fallback).sum() > 50 and mix.fallback[world.vocab.new].sum() > 0


def test_rows_are_convex_and_copies_are_bit_equal(world: RowContext) -> None:
    mix = focus(world, FocusSettings(training=QUICK))
    assert mix.weights.data.min() > 0
    sums = np.asarray(mix.weights.sum(axis=1)).ravel()
    np.testing.assert_allclose(sums[~mix.fallback], 1, atol=1e-12)
    whole = mix.with_copies(world.vocab.overlap)
    filled = whole.apply(world.rows, rng=np.random.default_rng(0))
    assert np.array_equal(filled[world.vocab.overlap[:, 0]], world.rows[world.vocab.overlap[:, 1]])
    inside = filled[~whole.fallback]
    assert (inside <= world.rows.max(axis=0) + 1e-6).all() and (inside >= world.rows.min(axis=0) - 1e-6).all()
    again = focus(world, FocusSettings(training=QUICK))
    assert (again.weights != mix.weights).nnz == 0


def test_without_copies_an_overlapping_token_is_mostly_itself(world: RowContext) -> None:
    free = context(world.source_tokenizer, world.target_tokenizer, corpus=world.corpus, copy_overlap=False)
    mix = focus(free, FocusSettings(training=QUICK, scale=20))
    pairs = [(t, s) for t, s in free.vocab.overlap if not mix.fallback[t]]
    assert np.mean([mix.weights[t].indices[mix.weights[t].data.argmax()] == s for t, s in pairs]) > 0.95


def test_a_larger_scale_means_fewer_sources(world: RowContext) -> None:
    few, many = (focus(world, FocusSettings(training=QUICK, scale=s)).weights.nnz for s in (300, 1))
    assert few < many / 2


@given(st.randoms(use_true_random=False))
@limits(max_examples=10, deadline=None)
def test_given_token_vectors_are_used(
    world: RowContext, tmp_path_factory: pytest.TempPathFactory, random
) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(random.randrange(2**32))
    names = world.target_tokenizer.convert_ids_to_tokens(list(range(len(world.target_tokenizer))))
    vectors = rng.standard_normal((len(names), 6)).astype(np.float32)
    file = tmp_path_factory.mktemp("vectors") / "tokens.npz"
    np.savez(file, words=np.array(names), vectors=vectors)
    world.aux.clear()
    mix = focus(world, FocusSettings(vectors=str(file)))
    new = int(random.choice(world.vocab.new.tolist()))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = sparsemax((unit[world.vocab.overlap[:, 0]] @ unit[new])[None])[0]
    got = mix.weights[new].toarray()[0]
    np.testing.assert_allclose(got[world.vocab.overlap[:, 1]], expected, atol=1e-5)


def test_missing_text_and_missing_anchors_end_in_one_sentence(world: RowContext, tmp_path: Path) -> None:
    bare = context(world.source_tokenizer, world.target_tokenizer)
    with pytest.raises(UserError, match="focus"):
        focus(bare, FocusSettings())
    new = world.vocab.target[int(world.vocab.new[0])].string
    other = [world.vocab.target[int(i)].string for i in world.vocab.new[1:]]
    np.savez(tmp_path / "v.npz", words=np.array([new, *other]), vectors=np.ones((1 + len(other), 3)))
    with pytest.raises(UserError, match="no token that both vocabularies share"):
        focus(bare, FocusSettings(vectors=str(tmp_path / "v.npz")))


def test_it_is_registered_with_its_source() -> None:
    entry = initialisers.get("focus")
    assert entry.arxiv == "2305.14481" and entry.target is focus and "all-rows" not in entry.tags
