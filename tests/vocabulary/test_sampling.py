"""Sampled tokenizers: the sparse machinery equals plain counting, and cuts text without loss."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from aux_worlds import english

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.predictor.sampling import Noise, SampledVocabulary, TextPool, split_words

TEXTS = [
    *english(20_000)[:60],
    "größer, Füße: naïve — 日本語の文字 日本語",
    "x = 1\n\n\n    y = 2  # ====",
    "aaaa aaa",
]


def pool(**options: object) -> TextPool:
    return TextPool.build(TEXTS, **options)  # type: ignore[arg-type]


def brute_force(
    texts: list[str], units: set[bytes], size: int, noise: Noise, rng: np.random.Generator, known: set[bytes]
) -> dict[bytes, float]:
    """The same vocabulary by counting every substring of every word."""
    counts = _substring_counts(texts)
    weight = {s: n * len(s) for s, n in counts.items() if s not in units and s in known}
    total = sum(weight.values())
    deviation = rng.lognormal(math.log(noise.scale), noise.spread) if noise.scale else 0.0
    names = sorted(weight)
    noised = {s: weight[s] / total + deviation * z for s, z in zip(names, rng.standard_normal(len(names)))}
    best = sorted((s for s in names if noised[s] > 0), key=lambda s: -noised[s])[: size - len(units)]
    least = math.log(min(weight.values()) / total)
    return {**dict.fromkeys(units, least), **{s: math.log(noised[s]) for s in best}}


def _substring_counts(texts: list[str]) -> Counter[bytes]:
    counts: Counter[bytes] = Counter()
    for text in texts:
        for word in split_words(text):
            for start in range(len(word)):
                for end in range(start + 1, len(word) + 1):
                    part = word[start:end].encode()
                    if len(part) <= 16:
                        counts[part] += 1
    return counts


@pytest.mark.parametrize("by_character", [False, True])
@pytest.mark.parametrize("noise", [Noise(0.0), Noise(1e-4, 0.5)])
def test_a_vocabulary_is_that_of_plain_counting(by_character: bool, noise: Noise) -> None:
    found = pool(by_character=by_character)
    window = np.array([0, 5, 5, 17, len(found) - 1, len(found) - 3])
    everything = _substring_counts(TEXTS)
    twice = {s for s, n in everything.items() if n >= 2}
    drawn = SampledVocabulary.draw(found, window, 400, rng=np.random.default_rng(3), noise=noise)
    expected = brute_force(
        [TEXTS[i] for i in window], set(found.base), 400, noise, np.random.default_rng(3), twice
    )
    actual = {found.string(int(e)): s for e, s in zip(drawn.entries, drawn.scores)}
    assert len(actual) == len(drawn) == 400
    # equal scores at the border may fall either way, so compare what lies above it
    border = min(s for piece, s in expected.items() if piece not in found.base)
    assert {p for p, s in actual.items() if s > border + 1e-9} == {
        p for p, s in expected.items() if s > border + 1e-9
    }
    assert all(math.isclose(s, expected[p], abs_tol=1e-9) for p, s in actual.items() if p in expected)


def test_frequencies_are_those_of_the_texts_given() -> None:
    found = pool()
    window = np.array([1, 1, 2])
    counts = _substring_counts([TEXTS[1], TEXTS[1], TEXTS[2]])
    frequency = found.frequencies(window)
    assert frequency.sum() > 0
    for number in range(len(found.substrings)):
        assert frequency[number] == counts[bytes(found.substrings[number])]


@pytest.mark.parametrize("by_character", [False, True])
def test_segmentation_is_the_most_probable_one(by_character: bool) -> None:
    found = pool(by_character=by_character)
    drawn = SampledVocabulary.draw(found, np.arange(len(found)), 500, rng=np.random.default_rng(0))
    score = {found.string(int(e)): s for e, s in zip(drawn.entries, drawn.scores)}
    words = np.unique(found.text_words)
    for word, ids in zip(words, drawn.segment(found, words), strict=True):
        pieces = [found.string(int(drawn.entries[i])) for i in ids]
        data = found.words[int(word)]
        assert b"".join(pieces) == data
        best = [0.0] + [-math.inf] * len(data)
        for end in range(1, len(data) + 1):
            for start in range(max(0, end - 16), end):
                if (value := score.get(data[start:end])) is not None:
                    best[end] = max(best[end], best[start] + value)
        assert math.isclose(sum(score[p] for p in pieces), best[-1], rel_tol=1e-9)


def test_substrings_are_whole_characters() -> None:
    found = pool()
    for piece in found.substrings:
        assert len(bytes(piece).decode()) >= 1 and len(piece) <= 16
    assert "日本".encode() in set(found.substrings.tolist())


def test_disallowed_substrings_leave_the_others_where_they_were() -> None:
    found = pool()
    texts = np.arange(len(found))
    first = SampledVocabulary.draw(found, texts, 400, rng=np.random.default_rng(1))
    banned = first.entries[300:310]
    allowed = np.ones(len(found.substrings), dtype=bool)
    allowed[banned - len(found.base)] = False
    second = SampledVocabulary.draw(found, texts, 400, rng=np.random.default_rng(1), allowed=allowed)
    assert not set(banned.tolist()) & set(second.entries.tolist())
    assert set(first.entries.tolist()) - set(banned.tolist()) <= set(second.entries.tolist())


def test_noise_makes_tokenizers_differ_and_the_seed_repeats_them() -> None:
    found = pool()
    texts = np.arange(len(found))
    draws = [
        SampledVocabulary.draw(
            found, texts, 600, rng=np.random.default_rng(seed), noise=Noise(1e-3, 0.1)
        ).entries.tolist()
        for seed in (0, 0, 1)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_passages_hold_the_whole_text() -> None:
    found = pool(passage=40)
    words = [b"".join(found.words[int(w)] for w in found.text(i)) for i in range(len(found))]
    assert b"".join(words).decode() == "".join(TEXTS)
    assert len(found) > len(TEXTS) and max(map(len, words)) < 40 + 4 * 48


def test_no_text_is_one_sentence() -> None:
    with pytest.raises(UserError, match="no text"):
        TextPool.build(["", ""])
