"""OFA against its definition, and where it parts from WECHSEL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from aux_worlds import Texts, byte_bpe, cipher_word, context, encipher, english

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.aux_space import StaticSettings, load_vectors, subword_space
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.rows.ofa import OfaSettings, ofa


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[RowContext, str]:
    """English to enciphered English, and one file with aligned vectors of both, very unequal in frequency."""
    texts = english()[:700]
    source, target = byte_bpe(texts[:350], 700), byte_bpe([encipher(t) for t in texts[350:]], 700)
    words = sorted({w.strip(".,()").lower() for t in texts for w in t.split()} - {""})
    words = [w for w in words if w.isascii() and w.isalpha()][:200]
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((len(words), 12)).astype(np.float32)
    names = [*words, *map(cipher_word, words)]
    file = tmp_path_factory.mktemp("vectors") / "both.npz"
    counts = rng.integers(1, 10**6, len(names))
    np.savez(file, words=np.array(names), vectors=np.concatenate([vectors, vectors]), counts=counts)
    return context(source, target), str(file)


def settings(file: str, **options: object) -> OfaSettings:
    return OfaSettings.parse({"source_vectors": file, "target_vectors": file, **options})


def test_rows_equal_the_definition_with_unweighted_means(world: tuple[RowContext, str]) -> None:
    made, file = world
    mix = ofa(made, settings(file)).check()
    words = load_vectors(file)
    sides = []
    for tokenizer in (made.source_tokenizer, made.target_tokenizer):
        total, count = np.zeros((len(tokenizer), 12)), np.zeros(len(tokenizer))
        for word, vector in zip(words.names, words.vectors):
            for text in (word, " " + word):
                for token in set(tokenizer(text, add_special_tokens=False)["input_ids"]):
                    total[token] += vector
                    count[token] += 1
        mean = total / np.maximum(count, 1)[:, None]
        sides.append(mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12))
    source, target = sides
    known = np.flatnonzero(source.any(axis=1))
    for token in made.vocab.new:
        if not target[token].any():
            assert mix.fallback[token]
            continue
        cosine = source[known] @ target[token]
        nearest = np.argsort(-cosine, kind="stable")[:10]
        expected = np.zeros(made.shape[1])
        expected[known[nearest]] = np.exp(cosine[nearest] / 0.1)
        np.testing.assert_allclose(mix.weights[token].toarray()[0], expected / expected.sum(), atol=1e-4)
    assert mix.mixed[made.vocab.new].sum() > 50 and mix.weights.data.min() > 0
    weighted = subword_space(words, made.target_tokenizer)
    assert np.abs(weighted.vectors - subword_space(words, made.target_tokenizer, weighted=False).vectors).max() > 0.1  # noqa: E501  # fmt: skip


def test_overlap_is_copied_by_default(world: tuple[RowContext, str]) -> None:
    made, file = world
    assert "all-rows" not in initialisers.get("ofa").tags
    pairs = made.vocab.overlap
    filled = ofa(made, settings(file)).with_copies(pairs).apply(made.rows, rng=np.random.default_rng(0))
    assert np.array_equal(filled[pairs[:, 0]], made.rows[pairs[:, 1]])


def test_one_file_for_both_sides_counts_as_aligned(world: tuple[RowContext, str], tmp_path: Path) -> None:
    made, file = world
    same = ofa(made, settings(file, anchors="none"))
    assert (same.weights != ofa(made, settings(file)).weights).nnz == 0
    turned = context(made.source_tokenizer, made.target_tokenizer)
    turned.dictionary = [("about", cipher_word("about"))]
    assert (ofa(turned, settings(file)).weights != same.weights).nnz == 0
    assert (ofa(turned, settings(file, anchors="dictionary")).weights != same.weights).nnz > 0


def test_two_monolingual_texts_are_aligned_and_errors_name_the_method(world: tuple[RowContext, str]) -> None:
    made, _ = world
    texts = english()[:700]
    words = sorted({w.lower() for t in texts for w in t.split() if w.isalpha()})
    bilingual = context(
        made.source_tokenizer,
        made.target_tokenizer,
        corpus=Texts(encipher(t) for t in texts[350:]),
        source_corpus=Texts(texts[:350]),
        dictionary=[(w, cipher_word(w)) for w in words],
    )
    quick = StaticSettings(level="word", dim=8, epochs=1, min_count=3, min_n=0, max_n=0)
    assert ofa(bilingual, OfaSettings(training=quick)).check().mixed.sum() > 100
    with pytest.raises(UserError, match="'ofa' needs a source corpus"):
        ofa(made, OfaSettings())
    bilingual.dictionary = None
    with pytest.raises(UserError, match="'ofa' needs a dictionary"):
        ofa(bilingual, OfaSettings(training=quick, anchors="dictionary"))
    with pytest.raises(UserError, match=r"training\.level must be word"):
        OfaSettings.parse({"training": {"level": "token"}})
