"""HyperOFA: bags are what they say, the loss is the formula, and the network finds planted rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from aux_worlds import Texts, byte_bpe, cipher_word, context, encipher, english, whole_words

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.predictor.bag_network import BagNetwork, BagRows, bag_loss, coordinates_of
from warmstart.vocabulary.predictor.bag_settings import BagNetworkSettings
from warmstart.vocabulary.predictor.bags import Bags, by_length, thinned, token_bags
from warmstart.vocabulary.rows._base import RowContext
from warmstart.vocabulary.rows.hyper_ofa import HyperOfaSettings, hyper_ofa

VECTORS = {"level": "word", "min_count": 2, "min_n": 0, "max_n": 0, "dim": 16, "epochs": 3}
QUICK = {"training": VECTORS, "network": {"hidden_size": 16, "epochs": 2}}


def pair() -> RowContext:
    """English source, the same text in a word cipher as target, with the dictionary between them."""
    plain = list(english(25_000))
    hidden = [encipher(line) for line in plain]
    words = sorted({word for line in plain for word in line.lower().split() if word.isalpha()})
    given = context(byte_bpe(plain, 500), byte_bpe(hidden, 500))
    return replace(
        given,
        corpus=Texts(hidden),
        source_corpus=Texts(line.lower() for line in plain),
        dictionary=[(word, cipher_word(word)) for word in words],
    )


@pytest.mark.parametrize("limit", [3, 1000])
def test_bags_hold_the_first_words_that_contain_a_token(limit: int) -> None:
    tokenizer = byte_bpe(english(30_000), 500)
    words = list(dict.fromkeys(" ".join(english(30_000)).split()))[:400]
    bags = token_bags(words, tokenizer, limit)
    expected: dict[int, list[int]] = {token: [] for token in range(len(tokenizer))}
    for number, word in enumerate(words):
        cuts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (word, " " + word)]
        for token in {*cuts[0], *cuts[1]} - set(tokenizer.all_special_ids):
            expected[token].append(number)
    assert sum(map(bool, expected.values())) > 100
    for token, numbers in expected.items():
        assert bags[token].tolist() == numbers[:limit]


def test_batches_hold_each_bag_once_and_pad_little() -> None:
    sizes = np.random.default_rng(0).integers(1, 65, 3000)
    batches = list(by_length(sizes, 50, np.random.default_rng(1)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(3000))
    padded = sum(len(b) * sizes[b].max() for b in batches)
    assert padded < 1.1 * sizes.sum()
    again = list(by_length(sizes, 50, np.random.default_rng(1)))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_thinning_keeps_half_to_all_of_long_bags_half_of_the_time() -> None:
    rng = np.random.default_rng(0)
    bag = np.arange(100, 140)
    found = [thinned(bag, rng) for _ in range(2000)]
    whole = [np.array_equal(f, bag) for f in found]
    assert 0.45 < np.mean(whole) < 0.55
    cut = [f for f, w in zip(found, whole) if not w]
    assert all(20 <= len(f) <= 40 and len(set(f)) == len(f) and set(f) <= set(bag) for f in cut)
    assert any((np.diff(f) < 0).any() for f in cut), "the order is not shuffled"
    assert all(np.array_equal(thinned(bag[:4], rng), bag[:4]) for _ in range(50))


def test_the_loss_is_the_formula() -> None:
    rng = np.random.default_rng(0)
    found, goal = rng.standard_normal((5, 7)), rng.standard_normal((5, 7))
    contrast = 0.0
    for i in range(5):
        logit = [
            float(found[i] @ goal[j] / np.linalg.norm(found[i]) / np.linalg.norm(goal[j])) / 0.25
            for j in range(5)
        ]
        contrast -= (logit[i] - math.log(sum(map(math.exp, logit)))) / 5
    expected = 0.1 * contrast + 0.9 * np.abs(found - goal).mean() / np.abs(goal).mean()
    actual = bag_loss(torch.from_numpy(found), torch.from_numpy(goal), mix=0.1, temperature=0.25)
    assert math.isclose(float(actual), expected, rel_tol=1e-12)


def test_padding_does_not_change_a_row() -> None:
    vectors = np.random.default_rng(0).standard_normal((30, 6)).astype(np.float32)
    network = BagNetwork(vectors, 8, 2, 5, 0.3).eval()
    bags = [np.array([3, 4, 5, 6, 7]), np.array([9]), np.array([2, 1])]
    with torch.no_grad():
        together = network(bags)
        for row, bag in zip(together, bags):
            assert torch.allclose(row, network([bag])[0], atol=1e-6)
        assert not torch.allclose(network([bags[2]]), network([bags[2][::-1].copy()]), atol=1e-4)


def test_coordinates_are_the_singular_value_decomposition() -> None:
    rows = np.random.default_rng(0).standard_normal((60, 8))
    left, size, right = np.linalg.svd(rows[5:], full_matrices=False)
    found, basis = coordinates_of(rows, np.arange(5, 60), 3)
    assert basis is not None and found.shape == (60, 3) and basis.shape == (3, 8)
    assert np.allclose(found[5:] @ basis, (left[:, :3] * size[:3]) @ right[:3])
    assert np.allclose(np.abs(found[5:]), np.abs(left[:, :3]))
    whole, basis = coordinates_of(rows, None, 8)
    assert basis is not None and np.allclose(whole @ basis, rows)
    assert coordinates_of(rows, None, None)[0] is rows


@pytest.mark.parametrize("coordinates", [None, 6])
def test_it_finds_planted_rows(coordinates: int | None) -> None:
    """Rows that are a linear map of a bag's mean vector are written for unseen bags, and not by chance."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((40, 6)).astype(np.float32)
    lists = [np.sort(rng.choice(40, int(rng.integers(1, 4)), replace=False)) for _ in range(900)]
    means = np.stack([vectors[bag].mean(axis=0) for bag in lists])
    rows = 0.02 * (means @ rng.standard_normal((6, 12))).astype(np.float32)
    sizes = np.array([len(bag) for bag in lists])
    bags = Bags(np.concatenate(lists), np.cumsum(sizes) - sizes, sizes)
    seen = np.arange(700)
    hidden = rows.copy()
    hidden[700:] = 9.0  # what is not in `reference` must not be learned from
    settings = BagNetworkSettings(hidden_size=32, dropout=0.0, epochs=20, learning_rate=5e-3)
    source = Bags(bags.flat, bags.starts, bags.sizes)
    made = BagRows(vectors, source, bags, settings, coordinates, seed=0)
    found = made(np.arange(700, 900), hidden, reference=seen)
    true = rows[700:]
    cosine = (found * true).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(true, axis=1)
    assert cosine.mean() > 0.8, cosine.mean()
    assert 0.5 < np.linalg.norm(found) / np.linalg.norm(true) < 1.5
    assert made.measured["bags"] == 700
    assert made.measured["validation_cosine"] is not None and made.measured["validation_cosine"] > 0.7


def test_rows_of_new_tokens_come_from_the_network() -> None:
    given = pair()
    mix = hyper_ofa(given, HyperOfaSettings.parse(QUICK))
    assert isinstance(mix, ComputedMix)
    computed = np.flatnonzero(mix.computed)
    assert len(computed) > 100 and set(computed) <= set(given.wanted)
    state = torch.get_rng_state()
    first = mix.apply(given.rows, rng=np.random.default_rng(0))
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"
    assert np.array_equal(first, mix.apply(given.rows, rng=np.random.default_rng(0)))
    other = hyper_ofa(replace(given, seed=1), HyperOfaSettings.parse(QUICK))
    second = other.apply(given.rows, rng=np.random.default_rng(0))
    assert not np.allclose(first[computed], second[computed])
    head = mix.apply(given.rows[::-1].copy(), rng=np.random.default_rng(0), which="head")
    assert not np.allclose(first[computed], head[computed])
    report = mix.report(given.rows, first)
    assert isinstance(report["validation_cosine"], float) and report["bags"]


def test_own_language_bags_hold_own_words_only() -> None:
    given = pair()
    makers = [
        hyper_ofa(given, HyperOfaSettings.parse({**QUICK, "own_language": own})) for own in (True, False)
    ]
    own, every = (m.compute for m in makers if isinstance(m, ComputedMix))
    assert isinstance(own, BagRows) and isinstance(every, BagRows)
    assert not set(own.source.flat) & set(own.target.flat)
    assert set(every.source.flat) & set(every.target.flat)


def test_bad_input_is_one_sentence() -> None:
    given = pair()
    settings = HyperOfaSettings.parse(QUICK)
    with pytest.raises(UserError, match="needs a source corpus"):
        hyper_ofa(replace(given, source_corpus=None), settings)
    with pytest.raises(UserError, match="needs a dictionary"):
        hyper_ofa(replace(given, dictionary=None), HyperOfaSettings.parse({**QUICK, "anchors": "dictionary"}))
    with pytest.raises(UserError, match="level must be word"):
        HyperOfaSettings.parse({"training": {"level": "token"}})
    with pytest.raises(UserError, match="unknown key"):
        HyperOfaSettings.parse({"network": {"hidden": 3}})
    words = whole_words(["alpha", "beta"])
    with pytest.raises(UserError, match="contain tokens of the source"):
        foreign = context(words, given.target_tokenizer)
        hyper_ofa(
            replace(
                foreign,
                corpus=given.corpus,
                source_corpus=given.source_corpus,
                dictionary=given.dictionary,
            ),
            settings,
        )
