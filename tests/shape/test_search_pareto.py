"""Sorting by dominance, crowding and hypervolume against what is counted by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from warmstart.shape.search.pareto import crowding, fronts, hypervolume, ranked


def points(seed: int, count: int, width: int, levels: int = 6) -> np.ndarray:
    """Few levels, so that many coordinates are equal and some points twice there."""
    return np.random.default_rng(seed).integers(0, levels, (count, width)) / levels


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    return all(x <= y for x, y in zip(a, b)) and any(x < y for x, y in zip(a, b))


def peeled(given: np.ndarray) -> list[list[int]]:
    left, found = list(range(len(given))), []
    while left:
        first = [i for i in left if not any(dominates(given[j], given[i]) for j in left)]
        found.append(first)
        left = [i for i in left if i not in first]
    return found


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_fronts_are_those_of_peeling(seed: int, width: int) -> None:
    given = points(seed, 25, width)
    assert [front.tolist() for front in fronts(given)] == peeled(given)


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_hypervolume_is_that_of_inclusion_and_exclusion(seed: int, width: int) -> None:
    given, reference = points(seed, 8, width), np.full(width, 0.8)
    inside = [p for p in given if (p < reference).all()]
    total = 0.0
    for size in range(1, len(inside) + 1):
        for chosen in itertools.combinations(inside, size):
            corner = np.max(chosen, axis=0)  # the boxes of several points meet in the box of their maximum
            total += (-1) ** (size + 1) * math.prod(reference - corner)
    assert hypervolume(given, reference) == pytest.approx(total, abs=1e-12)
    assert len(inside) < len(given), "some points must lie outside"


def test_only_the_front_counts_for_the_volume() -> None:
    given = points(7, 40, 2)
    front = given[fronts(given)[0]]
    assert hypervolume(front, np.ones(2)) == pytest.approx(hypervolume(given, np.ones(2)), abs=1e-12)
    assert hypervolume(np.array([[0.25, 0.5]]), np.ones(2)) == pytest.approx(0.375)
    assert hypervolume(np.zeros((0, 2)), np.ones(2)) == 0.0


def test_room_is_the_distance_of_neighbours() -> None:
    line = np.array([[0.0, 8.0], [4.0, 1.0], [1.0, 4.0], [8.0, 0.0]])
    room = crowding(line)
    assert room[[0, 3]].tolist() == [math.inf, math.inf]
    assert room[2] == pytest.approx(4 / 8 + 7 / 8) and room[1] == pytest.approx(7 / 8 + 4 / 8)
    assert crowding(np.ones((3, 2)))[1] == 0.0


def test_ranks_go_by_front_and_then_by_room() -> None:
    given = np.array([[5.0, 5.0], [0.0, 8.0], [1.0, 6.0], [2.0, 5.0], [8.0, 0.0], [6.0, 6.0]])
    assert ranked(given).tolist() == [1, 4, 3, 2, 0, 5]
    assert ranked(np.zeros((0, 2))).tolist() == []
