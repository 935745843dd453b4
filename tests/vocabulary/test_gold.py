"""Gold rows: the oracle scores one, the meaning goes through the cipher, and only whole words count."""

from __future__ import annotations

import numpy as np
import pytest
from aux_worlds import byte_bpe, english

from warmstart.corpus.named.cipher import decipher_word, encipher_words
from warmstart.foundation.errors import UserError
from warmstart.vocabulary.gold import GoldRows, gold_rows
from warmstart.vocabulary.map import VocabMap

TYPES = {word for text in english(60_000) for word in text.lower().split() if word.isalpha()}


def meaning(text: str) -> str | None:
    word = decipher_word(text)
    return word if word.lower() in TYPES and word != text else None


@pytest.fixture(scope="module")
def world() -> tuple[VocabMap, GoldRows]:
    texts = english(60_000)
    source, target = byte_bpe(texts, 1500), byte_bpe(map(encipher_words, texts), 1500)
    vocab = VocabMap.build(source, target)
    return vocab, gold_rows(vocab, meaning)


def test_the_true_word_is_looked_up_behind_a_space(world: tuple[VocabMap, GoldRows]) -> None:
    vocab, gold = world
    assert len(gold.ids) > 100 and gold.single.mean() > 0.5
    source = vocab.source_tokenizer
    for row, (index, word) in enumerate(zip(gold.ids, gold.words, strict=True)):
        token = vocab.target[index]
        assert token.starts_word and encipher_words(word) == token.text
        ids = source(f" {word}", add_special_tokens=False)["input_ids"]
        expected = np.zeros(vocab.source_size)
        for piece in ids:
            expected[piece] += 1 / len(ids)
        np.testing.assert_allclose(gold.weights[row].toarray()[0], expected)
        assert gold.single[row] == (len(ids) == 1)


def test_no_token_with_a_meaning_is_left_out(world: tuple[VocabMap, GoldRows]) -> None:
    vocab, gold = world
    expected = {t.id for t in vocab.target if t.is_text and t.starts_word and meaning(t.text)}
    assert set(gold.ids.tolist()) == expected
    assert not any(vocab.target[i].text.isascii() for i in gold.ids)


def test_the_oracle_scores_one_and_its_opposite_minus_one(world: tuple[VocabMap, GoldRows]) -> None:
    vocab, gold = world
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((vocab.source_size, 8)) + 3.0
    filled = rng.standard_normal((vocab.target_size, 8)) + 3.0
    truth = gold.weights @ rows
    filled[gold.ids] = 2.5 * truth
    np.testing.assert_allclose(gold.cosines(filled, rows), 1.0)
    filled[gold.ids] = rows.mean(axis=0) - 2 * (truth - rows.mean(axis=0))
    np.testing.assert_allclose(gold.cosines(filled, rows, centred=True), -1.0)


def test_cosines_equal_the_plain_formula(world: tuple[VocabMap, GoldRows]) -> None:
    vocab, gold = world
    rng = np.random.default_rng(1)
    rows, filled = rng.standard_normal((vocab.source_size, 5)), rng.standard_normal((vocab.target_size, 5))
    filled[gold.ids[0]] = 0
    for centred in (False, True):
        middle = rows.mean(axis=0) * centred
        found = gold.cosines(filled.astype(np.float64), rows, centred=centred)
        for row, index in enumerate(gold.ids):
            a, b = filled[index] - middle, gold.weights[row].toarray()[0] @ rows - middle
            length = np.linalg.norm(a) * np.linalg.norm(b)
            assert found[row] == pytest.approx(a @ b / length if length else 0.0)


def test_rows_of_another_width_and_a_world_without_truth_are_refused(
    world: tuple[VocabMap, GoldRows],
) -> None:
    vocab, gold = world
    with pytest.raises(UserError, match="rows of 4 numbers"):
        gold.cosines(np.zeros((vocab.target_size, 4)), np.zeros((vocab.source_size, 5)))
    with pytest.raises(UserError, match="no token of the new vocabulary"):
        gold_rows(vocab, lambda text: None)
