"""Dynamic time warping against all paths, and edit distances against recursion."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.dtw import edit_distances, token_costs, warped

RNG = np.random.default_rng(0)


def all_paths(n: int, m: int) -> list[list[tuple[int, int]]]:
    """Every monotone path from (0, 0) to (n - 1, m - 1)."""
    if n == 1 and m == 1:
        return [[(0, 0)]]
    found = []
    for i, j in ((n - 1, m - 1), (n - 1, m), (n, m - 1)):
        if i and j:
            found += [[*path, (n - 1, m - 1)] for path in all_paths(i, j)]
    return found


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (4, 1), (3, 3), (4, 5), (5, 3)])
def test_no_path_is_cheaper(n: int, m: int) -> None:
    for trial in range(8):
        cost = RNG.random((n, m)) if trial % 2 else RNG.integers(0, 3, (n, m)).astype(float)
        path, total = warped(cost)
        sums = [sum(cost[pair] for pair in one) for one in all_paths(n, m)]
        assert total == pytest.approx(min(sums), rel=1e-12)
        pairs = [(int(i), int(j)) for i, j in path]
        assert pairs in all_paths(n, m)
        assert sum(cost[pair] for pair in pairs) == pytest.approx(total, rel=1e-12)


def test_a_long_alignment_equals_the_plain_table() -> None:
    """The anti-diagonals against two loops."""
    cost = RNG.random((37, 52))
    table = np.full((38, 53), np.inf)
    table[0, 0] = 0
    for i, j in itertools.product(range(37), range(52)):
        table[i + 1, j + 1] = cost[i, j] + min(table[i, j], table[i, j + 1], table[i + 1, j])
    assert warped(cost)[1] == pytest.approx(table[-1, -1], rel=1e-12)
    with pytest.raises(UserError, match="without tokens"):
        warped(np.zeros((0, 3)))


@functools.cache
def levenshtein(a: str, b: str) -> int:
    if not a or not b:
        return len(a) + len(b)
    return min(
        levenshtein(a[1:], b) + 1, levenshtein(a, b[1:]) + 1, levenshtein(a[1:], b[1:]) + (a[0] != b[0])
    )


def test_edit_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["", "a", "ab", "ba", "kitten", "sitting", "東京", "東", " earns", "earn", "s", "12"]
    expected = [[levenshtein(a, b) for b in words[2:]] for a in words]
    assert edit_distances(words, words[2:]).tolist() == expected
    monkeypatch.setattr("warmstart.vocabulary.dtw._AT_ONCE", 25)  # a few strings at a time
    assert edit_distances(words, words[2:]).tolist() == expected
    assert edit_distances([], ["a"]).shape == (0, 1)


def test_costs_of_tokens() -> None:
    found = token_costs([" earns", " ", "12", " earns"], ["earn", "s", "12"])
    assert found.tolist() == [[1, 4, 5], [4, 1, 2], [4, 2, 0], [1, 4, 5]]
    share = token_costs([" earns", " "], ["earn", "s"], normalised=True)
    assert share.tolist() == [[1 / 5, 4 / 5], [1, 1]]


@pytest.mark.parametrize("text", ["the cat sat on the mat", "a a a a a a b a a a", "x"])
def test_equal_tokenizers_are_paired_one_to_one(text: str) -> None:
    """The identity path at no cost, also where tokens repeat."""
    tokens = [f" {word}" for word in text.split()]
    path, total = warped(token_costs(tokens, tokens))
    assert total == 0
    assert path.tolist() == [[i, i] for i in range(len(tokens))]


def test_other_cuts() -> None:
    """One to several and several to one; by letters alone `$` is nearer to `s` than to `$12`."""
    teacher = ["W", "eng", " earns", " $", "12", " for", " babys", "itting", "."]
    student = [" We", "ng", " earn", "s", " $12", " for", " baby", "s", "i", "tting", "."]
    path, _ = warped(token_costs(teacher, student))
    pairs = {(teacher[i], student[j]) for i, j in path}
    near = {(" for", " for"), (".", "."), ("eng", "ng"), (" earns", " earn"), (" $", "s"), ("12", " $12")}
    assert near | {(" babys", " baby"), ("itting", "tting")} <= pairs
