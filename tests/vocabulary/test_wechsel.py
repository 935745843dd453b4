"""WECHSEL against its definition, and on a word cipher whose gold map is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import regex
from aux_worlds import Texts, byte_bpe, cipher_word, context, encipher, english
from transformers import PreTrainedTokenizerFast

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.aux_space import StaticSettings
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.rows.wechsel import WechselSettings, bilingual_token_spaces, wechsel

TRAINING = StaticSettings(level="word", dim=50, epochs=30, min_count=5, min_n=0, max_n=0)


@pytest.fixture(scope="module")
def halves() -> tuple[Texts, Texts, PreTrainedTokenizerFast, PreTrainedTokenizerFast, list[str]]:
    """English, enciphered other English, their tokenizers, and the words by frequency."""
    texts = english()
    left, right = Texts(texts[0::2]), Texts(encipher(t) for t in texts[1::2])
    words, counts = np.unique(
        [w.lower() for t in texts for w in regex.findall("[A-Za-z]+", t)], return_counts=True
    )
    order = words[np.argsort(-counts, kind="stable")].tolist()
    return left, right, byte_bpe(left.texts, 2500), byte_bpe(right.texts, 2500), order


def gold(bilingual: RowContext, words: list[str]) -> list[tuple[int, int]]:
    """(target id, source id) of words that are one token in both vocabularies."""
    s = {token.surface: token.id for token in bilingual.vocab.source}
    t = {token.surface: token.id for token in bilingual.vocab.target}
    return [
        (t[" " + cipher_word(w)], s[" " + w]) for w in words if " " + w in s and " " + cipher_word(w) in t
    ]


def precision(bilingual: RowContext, settings: WechselSettings, pairs: list[tuple[int, int]]) -> float:
    mix = wechsel(bilingual, settings).check()
    best = [
        mix.weights[t].indices[mix.weights[t].data.argmax()] if mix.weights[t].nnz else -1 for t, _ in pairs
    ]
    return float(np.mean([b == s for b, (_, s) in zip(best, pairs)]))


def test_word_cipher_words_find_their_originals(halves) -> None:  # type: ignore[no-untyped-def]
    left, right, source, target, words = halves
    dictionary = [(w, cipher_word(w)) for w in words[:300]]
    settings = WechselSettings(training=TRAINING, centre=True, normalise=True)
    bilingual = context(
        source, target, corpus=right, source_corpus=left, dictionary=dictionary, copy_overlap=False
    )
    seen, unseen = gold(bilingual, words[:300]), gold(bilingual, words[300:600])
    assert len(seen) > 150 and len(unseen) > 20
    trained, held_out = (precision(bilingual, settings, pairs) for pairs in (seen, unseen))
    bilingual.dictionary = [(w, cipher_word(v)) for w, v in zip(words[:300], words[150:300] + words[:150])]
    shuffled = precision(bilingual, settings, seen)
    assert trained > 0.3 and held_out > 0.08, (trained, held_out)
    assert shuffled < trained / 5, (shuffled, trained)


def test_rows_equal_the_definition(halves) -> None:  # type: ignore[no-untyped-def]
    left, right, source, target, words = halves
    settings = WechselSettings(training=TRAINING, neighbours=4, temperature=0.2)
    bilingual = context(
        source,
        target,
        corpus=right,
        source_corpus=left,
        dictionary=[(w, cipher_word(w)) for w in words[:300]],
        copy_overlap=False,
    )
    mix = wechsel(bilingual, settings).check()
    spaces = bilingual_token_spaces(bilingual, settings)
    vectors = [x.vectors.astype(np.float64) for x in spaces]
    s, t = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-9) for v in vectors)
    filled = mix.apply(bilingual.rows, rng=np.random.default_rng(0))
    for token in bilingual.vocab.text_ids[::7]:
        if not spaces[1].known[token]:
            assert mix.fallback[token]
            continue
        cosine = np.where(spaces[0].known, s @ t[token], -np.inf)
        nearest = mix.weights[int(token)].indices  # tokens of the same words are equally near: any of them
        assert len(set(nearest)) == 4 and cosine[nearest].min() > np.sort(cosine)[-4] - 1e-6
        weight = np.exp(cosine[nearest] / 0.2)
        expected = weight @ bilingual.rows[nearest] / weight.sum()
        np.testing.assert_allclose(filled[token], expected, atol=1e-4)
    assert set(np.diff(mix.weights.indptr)) == {0, 4}
    assert mix.weights.data.min() > 0
    used = np.unique(mix.weights.indices)
    assert spaces[0].known[used].all() and not np.isin(used, source.all_special_ids).any()
    again = wechsel(bilingual, settings)
    assert (again.weights != mix.weights).nnz == 0


def test_overlap_is_copied_only_when_asked(halves) -> None:  # type: ignore[no-untyped-def]
    left, right, source, target, words = halves
    assert "all-rows" in initialisers.get("wechsel").tags
    bilingual = context(
        source,
        target,
        corpus=right,
        source_corpus=left,
        dictionary=[(w, cipher_word(w)) for w in words[:300]],
        copy_overlap=True,
    )
    mix = wechsel(bilingual, WechselSettings(training=TRAINING))
    assert np.diff(mix.weights.indptr)[bilingual.vocab.overlap[:, 0]].sum() == 0
    filled = mix.with_copies(bilingual.vocab.overlap).apply(bilingual.rows, rng=np.random.default_rng(0))
    pairs = bilingual.vocab.overlap
    assert len(pairs) and np.array_equal(filled[pairs[:, 0]], bilingual.rows[pairs[:, 1]])


def test_parallel_sentences_stand_in_for_a_dictionary_and_for_text(halves) -> None:  # type: ignore[no-untyped-def]
    _, _, source, target, words = halves
    parallel = [(t.lower(), encipher(t)) for t in english()[:2500]]
    bilingual = context(source, target, parallel=parallel, copy_overlap=False)
    settings = WechselSettings(training=TRAINING, centre=True, normalise=True)
    assert precision(bilingual, settings, gold(bilingual, words[:150])) > 0.4


def test_given_vectors_that_are_aligned_already(halves, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    _, _, source, target, words = halves
    vectors = np.random.default_rng(0).standard_normal((600, 20))
    np.savez(tmp_path / "s.npz", words=np.array(words[:600]), vectors=vectors)
    np.savez(tmp_path / "t.npz", words=np.array([cipher_word(w) for w in words[:600]]), vectors=vectors)
    settings = WechselSettings(
        source_vectors=str(tmp_path / "s.npz"), target_vectors=str(tmp_path / "t.npz"), anchors="none"
    )
    bilingual = context(source, target, copy_overlap=False)
    assert (
        precision(bilingual, settings, gold(bilingual, words[:200])) > 0.7
    )  # tokens also stand in other words
    np.savez(tmp_path / "t.npz", words=np.array(["α"]), vectors=np.ones((1, 7)))
    bilingual.aux.clear()
    with pytest.raises(UserError, match="20 dimensions, the target vectors 7"):
        wechsel(bilingual, settings)


def test_what_is_missing_is_said(halves) -> None:  # type: ignore[no-untyped-def]
    left, right, source, target, _ = halves
    with pytest.raises(UserError, match="wechsel"):
        wechsel(context(source, target), WechselSettings())
    with pytest.raises(UserError, match="dictionary"):
        wechsel(
            context(source, target, corpus=right, source_corpus=left),
            WechselSettings(training=TRAINING, anchors="dictionary"),
        )
    with pytest.raises(UserError, match="none of the 1 dictionary pairs"):
        wechsel(
            context(source, target, corpus=right, source_corpus=left, dictionary=[("qqq", "qqq")]),
            WechselSettings(training=TRAINING),
        )
    with pytest.raises(UserError, match=r"training\.level must be word"):
        WechselSettings.parse({"training": {"level": "token"}})
