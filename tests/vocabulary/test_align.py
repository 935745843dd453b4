"""Word alignment on planted dictionaries, and the rows made from it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from aux_worlds import Texts, byte_bpe, cipher_word, context, encipher, english

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.alignment import covering_counts, links, mine_dictionary, translation_table
from warmstart.vocabulary.rows._base import initialisers
from warmstart.vocabulary.rows.align import AlignSettings, align


def planted(
    sentences: int, words: int, seed: int, *, shuffle: bool = True
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Sentence pairs under a random dictionary, target words in another order, Zipf frequencies."""
    rng = np.random.default_rng(seed)
    gold = rng.permutation(words)  # source word s translates to gold[s]
    weight = 1 / np.arange(1, words + 1)
    pairs = []
    for _ in range(sentences):
        source = rng.choice(words, size=rng.integers(4, 11), p=weight / weight.sum())
        target = gold[source]
        pairs.append((source, rng.permutation(target) if shuffle else target))
    return pairs, gold


@pytest.mark.parametrize("symmetrise", ["none", "product"])
def test_a_planted_dictionary_is_recovered(symmetrise: str) -> None:
    pairs, gold = planted(3000, 300, 0)
    table = translation_table(pairs, 300, 300, symmetrise=symmetrise, diagonal=0.0)  # type: ignore[arg-type]
    best = np.asarray(table.counts.argmax(axis=1)).ravel()
    seen = np.asarray(table.counts.sum(axis=1)).ravel() > 5
    assert seen.sum() > 200
    assert np.mean(gold[best[seen]] == np.flatnonzero(seen)) > 0.97


def brute_force(
    pairs: list[tuple[np.ndarray, np.ndarray]], s: int, t: int, iterations: int, tension: float, p0: float
) -> np.ndarray:
    """IBM model 1 as loops over sentences: expected links `(t, s)` with the source generating the target."""
    frequency = np.bincount(np.concatenate([b for _, b in pairs]), minlength=t) / sum(
        len(b) for _, b in pairs
    )
    theta = np.tile(frequency[:, None], (1, s))
    counts = np.zeros((t, s))
    for step in range(iterations + 1):
        counts = np.zeros((t, s))
        for a, b in pairs:
            for j, y in enumerate(b):
                prior = np.exp(-tension * np.abs((np.arange(len(a)) + 0.5) / len(a) - (j + 0.5) / len(b)))
                share = (1 - p0) * prior / prior.sum() * theta[y, a]
                share /= share.sum() + p0 * frequency[y]
                np.add.at(counts[y], a, share)
        if step < iterations:
            theta = counts / np.maximum(counts.sum(axis=0, keepdims=True), 1e-300)
    return counts


@pytest.mark.parametrize("tension", [0.0, 4.0])
def test_array_arithmetic_equals_loops(tension: float) -> None:
    pairs, _ = planted(40, 12, 1, shuffle=False)
    got = translation_table(
        pairs, 12, 12, iterations=5, symmetrise="none", diagonal=tension, null_probability=0.1
    )
    np.testing.assert_allclose(
        got.counts.toarray(), brute_force(pairs, 12, 12, 5, tension, 0.1), rtol=1e-4, atol=1e-6
    )


def all_at_once(
    pairs: list[tuple[np.ndarray, np.ndarray]], size: int, symmetrise: str, tension: float, p0: float
) -> np.ndarray:
    """The same sums, in the same order, over arrays that hold every link: expected links `(t, s)`."""
    keys = np.concatenate([(a[:, None] * size + b).ravel() for a, b in pairs])
    number = [[0, 0], *np.cumsum([[len(a), len(b)] for a, b in pairs], axis=0).tolist()]
    places = [
        np.concatenate(
            [np.repeat(np.arange(x, x + len(a)), len(b)) for (x, _), (a, b) in zip(number, pairs)]
        ),
        np.concatenate([np.tile(np.arange(y, y + len(b)), len(a)) for (_, y), (a, b) in zip(number, pairs)]),
    ]
    distance = [
        np.abs((np.arange(len(a)) + 0.5)[:, None] / len(a) - (np.arange(len(b)) + 0.5) / len(b)).ravel()
        for a, b in pairs
    ]
    prior = np.exp(-tension * np.concatenate(distance)).astype(np.float32)
    unique, pair = np.unique(keys, return_inverse=True)
    types = np.divmod(unique, size)
    product = np.ones(len(pair))
    for giver, taker in ((0, 1), (1, 0))[: 2 if symmetrise == "product" else 1]:
        place, units = places[taker], np.concatenate([p[taker] for p in pairs])
        given = prior * ((1 - p0) / np.bincount(place, weights=prior))[place]
        frequency = np.bincount(units) / len(units)
        theta = frequency[types[taker]]
        for step in range(6):
            share = theta[pair] * given
            share = share / (np.bincount(place, weights=share) + p0 * frequency[units])[place]
            if step < 5:
                counts = np.bincount(pair, weights=share)
                total = np.bincount(types[giver], weights=counts)
                theta = counts / np.maximum(total, 1e-300)[types[giver]]
        product *= share
    counts, table = np.bincount(pair, weights=product), np.zeros((size, size))
    table[types[1], types[0]] = np.where(counts > 1e-9, counts, 0)
    return table


@pytest.mark.parametrize("sizes", [(1, 1), (37, 101), (1 << 18, 1 << 22)])
@pytest.mark.parametrize(("symmetrise", "tension"), [("none", 4.0), ("product", 4.0), ("product", 0.0)])
def test_blocks_of_links_give_bitwise_what_all_links_at_once_give(
    symmetrise: str, tension: float, sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "BLOCK", sizes[0])
    monkeypatch.setattr(links, "SORTED", sizes[1])
    pairs, _ = planted(60, 40, 4, shuffle=False)
    pairs = [(a, b[: 1 + len(b) // (1 + k % 3)]) for k, (a, b) in enumerate(pairs)]  # many shapes
    got = translation_table(
        pairs,
        40,
        40,
        iterations=5,
        symmetrise=symmetrise,
        diagonal=tension,
        null_probability=0.1,  # type: ignore[arg-type]
    )
    assert np.array_equal(got.counts.toarray(), all_at_once(pairs, 40, symmetrise, tension, 0.1))


def test_vocabularies_whose_pairs_need_more_than_32_bits() -> None:
    pairs, _ = planted(60, 40, 4, shuffle=False)
    plain = translation_table(pairs, 40, 40, iterations=3)
    spread = [(a * 2_000, b * 3_000) for a, b in pairs]
    large = translation_table(spread, 80_000, 120_000, iterations=3)
    assert np.array_equal(large.counts[::3_000, ::2_000].toarray(), plain.counts.toarray())


def test_memory_is_a_few_bytes_per_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "BLOCK", 1 << 12)
    monkeypatch.setattr(links, "SORTED", 1 << 14)
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 60, 40).tolist(), rng.integers(0, 60, 40).tolist()) for _ in range(500)]
    translation_table(pairs[:2], 60, 60, iterations=1)  # imports
    tracemalloc.start()
    translation_table(pairs, 60, 60, iterations=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 500 * 40 * 40  # 4 for the link, the rest for blocks and units


def test_probabilities_are_pruned_and_sum_to_one() -> None:
    pairs, _ = planted(60, 60, 2)
    table = translation_table(pairs, 60, 70, symmetrise="none", iterations=2)
    full = table.probabilities()
    sums = np.asarray(full.sum(axis=1)).ravel()
    np.testing.assert_allclose(sums[sums > 0], 1, atol=1e-12)
    assert (sums[60:] == 0).all() and np.diff(full.indptr).max() > 2
    few = table.probabilities(top_k=2, min_probability=0.1)
    assert np.diff(few.indptr).max() == 2
    np.testing.assert_allclose(np.asarray(few.sum(axis=1)).ravel(), sums, atol=1e-12)
    row = int(np.diff(few.indptr).argmax())
    top = np.sort(full[row].data)[::-1][:2]
    np.testing.assert_allclose(np.sort(few[row].data)[::-1], top / top.sum(), atol=1e-12)
    seen = np.asarray(table.counts.sum(axis=1)).ravel()
    assert np.array_equal(np.diff(table.probabilities(min_count=3).indptr) > 0, seen > 3)


def test_links_beyond_the_limit_are_left_out() -> None:
    pairs, _ = planted(50, 20, 3)
    assert translation_table(pairs, 20, 20).sentences == 50
    limit = sum(len(a) * len(b) for a, b in pairs[:10])
    assert translation_table(pairs, 20, 20, max_links=limit).sentences == 10
    with pytest.raises(UserError, match="no usable sentence pair"):
        translation_table([([], [1])], 2, 2)


def test_a_dictionary_is_mined_from_parallel_sentences() -> None:
    pairs = [(t.lower(), encipher(t)) for t in english()[:1500]]
    mined = mine_dictionary(pairs)
    words = [(s, t) for s, t in mined if s.isascii() and s.isalpha()]
    assert len(words) > 300
    assert np.mean([cipher_word(s) == t for s, t in words]) > 0.95
    assert mine_dictionary(pairs) == mined


def test_covering_shares_each_occurrence_over_its_source_tokens() -> None:
    texts = ["abcabc ab", "ab", "cab"]
    source, target = byte_bpe(["ab"] * 5, 259), byte_bpe(["bc abc"] * 9, 262)
    size = (len(target), len(source))
    got = covering_counts(texts, source, target, size, batch=2).toarray()
    expected = np.zeros(size)
    for text in texts:
        s, t = (tok(text, add_special_tokens=False, return_offsets_mapping=True) for tok in (source, target))
        for token, (left, right) in zip(t["input_ids"], t["offset_mapping"]):
            cover = [i for i, (a, b) in zip(s["input_ids"], s["offset_mapping"]) if a < right and left < b]
            for piece in cover:
                expected[token, piece] += 1 / len(cover)
    np.testing.assert_allclose(got, expected, atol=1e-12)
    assert got.sum() == pytest.approx(
        sum(len(target(x, add_special_tokens=False)["input_ids"]) for x in texts)
    )


def test_covering_keeps_whole_characters_together() -> None:
    source, target = byte_bpe(["x"], 258), byte_bpe(["über"] * 9, 264)
    got = covering_counts(["über"], source, target, (len(target), len(source)))
    (token,) = target("über", add_special_tokens=False)["input_ids"]
    pieces = source("über", add_special_tokens=False)["input_ids"]
    assert len(pieces) == 5
    assert np.array_equal(np.unique(got[token].indices), np.unique(pieces))
    np.testing.assert_allclose(got[token].data, 0.2)


def test_parallel_rows_find_the_cipher() -> None:
    texts = english()[:1200]
    pairs = [(t.lower(), encipher(t)) for t in texts]
    source, target = byte_bpe([a for a, _ in pairs], 1200), byte_bpe([b for _, b in pairs], 1200)
    world = context(source, target, parallel=pairs, copy_overlap=False)
    mix = align(world, AlignSettings()).check()
    s = {token.surface: token.id for token in world.vocab.source}
    words = [w for w in s if w.startswith(" ") and w[1:].isalpha()]
    t = {token.surface: token.id for token in world.vocab.target}
    pairs_gold = [(t[" " + cipher_word(w[1:])], s[w]) for w in words if " " + cipher_word(w[1:]) in t]
    assert len(pairs_gold) > 100
    best = [mix.weights[y].indices[mix.weights[y].data.argmax()] for y, _ in pairs_gold]
    assert np.mean([b == x for b, (_, x) in zip(best, pairs_gold)]) > 0.9
    assert mix.weights.data.min() > 0
    again = align(world, AlignSettings())
    assert (again.weights != mix.weights).nnz == 0


def test_rows_without_evidence_are_copied_or_pieces() -> None:
    texts = english()[:600]
    source, target = byte_bpe(texts[:300], 500), byte_bpe(texts[300:], 600)
    pairs = [(text, text) for text in texts[:5]]
    world = context(source, target, parallel=pairs, copy_overlap=False)
    mix = align(world, AlignSettings())
    seen = {i for _, text in pairs for i in target(text, add_special_tokens=False)["input_ids"]}
    filled = mix.apply(world.rows, rng=np.random.default_rng(0))
    copies = [(a, b) for a, b in world.vocab.overlap if a not in seen]
    assert len(copies) > 20
    assert all(np.array_equal(filled[a], world.rows[b]) for a, b in copies)
    new = [i for i in world.vocab.new if i not in seen]
    for i in new[:20]:
        np.testing.assert_allclose(filled[i], world.rows[world.vocab.pieces(int(i))].mean(axis=0), atol=1e-6)
    random = align(world, AlignSettings(unseen="normal"))
    assert random.fallback[new].all()


def test_same_text_rows_are_means_of_covering_tokens() -> None:
    texts = english()[:300]
    source, target = byte_bpe(texts, 400), byte_bpe(texts, 900)
    world = context(source, target, corpus=Texts(texts))
    mix = align(world, AlignSettings(top_k=10_000, min_probability=0, min_count=0)).check()
    counts = covering_counts(texts, source, target, world.shape)
    total = np.asarray(counts.sum(axis=1)).ravel()
    for token in [int(i) for i in world.vocab.new if total[i]][:100]:
        expected = (counts[token] @ world.rows)[0] / total[token]
        got = mix.apply(world.rows, rng=np.random.default_rng(0))[token] if token % 25 == 0 else None
        if got is not None:
            np.testing.assert_allclose(got, expected, atol=1e-5)
        np.testing.assert_allclose(mix.weights[token].toarray() @ world.rows, expected[None], atol=1e-5)


def test_what_is_missing_is_said_and_overlap_is_mixed_by_default() -> None:
    tokenizer = byte_bpe(["ab ab"], 260)
    with pytest.raises(UserError, match="parallel sentences, or text"):
        align(context(tokenizer, tokenizer), AlignSettings())
    with pytest.raises(UserError, match="parallel"):
        align(context(tokenizer, tokenizer), AlignSettings(evidence="parallel"))
    assert "all-rows" in initialisers.get("align").tags
