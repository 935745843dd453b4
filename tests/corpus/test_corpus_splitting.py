"""Splits depend on the text alone."""

from __future__ import annotations

import random
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from warmstart.corpus import open_corpus
from warmstart.corpus.splitting import split_of

FRACTIONS = {"valid_fraction": 0.2, "test_fraction": 0.1}


@given(st.text(), st.integers())
def test_equal_texts_fall_in_the_same_split(text, seed):
    place = split_of(text, seed=seed, **FRACTIONS)
    assert place == split_of(text, seed=seed, **FRACTIONS)
    assert place == split_of(f"  {text}\n", seed=seed, **FRACTIONS), "white space does not count"
    assert place in ("train", "valid", "test")


@given(st.text(), st.integers(0, 5), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_larger_fraction_only_takes_from_train(text, seed, small, more):
    before = split_of(text, seed=seed, valid_fraction=small, test_fraction=0.1)
    after = split_of(text, seed=seed, valid_fraction=min(small + more, 0.85), test_fraction=0.1)
    assert after == before or (before, after) == ("train", "valid")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(string.ascii_letters, min_size=1, max_size=3), min_size=1, max_size=40), st.randoms())
def test_order_and_copies_change_nothing(tmp_path_factory, words, rng):
    folder = tmp_path_factory.mktemp("order")
    copies = words + words[: len(words) // 2]
    rng.shuffle(copies)
    places = []
    for name, lines in (("a.txt", words), ("b.txt", copies)):
        (folder / name).write_text("\n".join(lines))
        corpus = open_corpus({"path": str(folder / name), "unit": "line", **FRACTIONS})
        places.append({(split, d.text) for split, d in corpus.divided("all")})
    assert places[0] == places[1]
    assert len({text for _, text in places[1]}) == len(places[1]), "a text is in two splits"


def test_shares_and_seeds():
    texts = [str(random.Random(i).random()) for i in range(20_000)]
    count = dict.fromkeys(("train", "valid", "test"), 0)
    for text in texts:
        count[split_of(text, seed=0, **FRACTIONS)] += 1
    # four standard deviations of a binomial with n = 20,000
    assert abs(count["valid"] - 4000) < 4 * (20_000 * 0.2 * 0.8) ** 0.5
    assert abs(count["test"] - 2000) < 4 * (20_000 * 0.1 * 0.9) ** 0.5
    other = sum(split_of(t, seed=0, **FRACTIONS) == split_of(t, seed=1, **FRACTIONS) for t in texts) / 20_000
    assert abs(other - (0.7**2 + 0.2**2 + 0.1**2)) < 0.02, "seeds divide independently"


def test_known_values():
    """A change here changes everybody's held-out text."""
    assert [split_of(str(i), seed=0, valid_fraction=0.25, test_fraction=0.25)[:2] for i in range(12)] == KNOWN


KNOWN = ["tr", "tr", "tr", "tr", "tr", "te", "tr", "tr", "va", "te", "tr", "tr"]
