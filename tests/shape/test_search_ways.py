"""Every way to search stays in its bin, keeps its budget and draws from its seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from search_models import SPACE as SIZES
from search_models import counts, loss_of, searched, space_of

from warmstart.shape.search import ways as machinery
from warmstart.shape.search.bins import Bin, linear_bins
from warmstart.shape.search.pareto import fronts
from warmstart.shape.search.space import Range
from warmstart.shape.search.ways import searches
from warmstart.shape.search.ways.nsga2 import _sorted as sorted_members

SPACE = space_of()
NAMES = searches.names()
POSSIBLE = sorted(n for n in counts(SPACE, list(SPACE)) if n)
MIDDLE = Bin(POSSIBLE[len(POSSIBLE) // 4], POSSIBLE[3 * len(POSSIBLE) // 4])


def test_all_ways_are_known() -> None:
    assert NAMES == ["evolution", "local", "nsga2", "random", "stratified"]


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("way", NAMES)
@pytest.mark.parametrize("seed", [0, 1])
def test_no_way_ever_leaves_its_bin(
    way: str, seed: int, listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small spaces are listed, in large ones sizes are drawn until they fit."""
    if not listed:
        monkeypatch.setattr(machinery, "ENUMERATED", 0)
        monkeypatch.setattr("warmstart.shape.search.ways.stratified.ENUMERATED", 0)
    context, questions = searched(way, SPACE, within=MIDDLE, budget=12, seed=seed)
    assert questions and all(n in MIDDLE for n in counts(SPACE, questions))
    assert any(n not in MIDDLE for n in POSSIBLE), "the bin must leave something out"
    assert 3 <= len(context.asked) <= 12


@pytest.mark.parametrize("way", NAMES)
def test_a_seed_decides_everything(way: str) -> None:
    first, again, other = (searched(way, SPACE, budget=10, seed=seed)[1] for seed in (3, 3, 4))
    assert first == again and first != other


@pytest.mark.parametrize("way", NAMES)
def test_a_small_space_is_searched_to_its_end(way: str) -> None:
    """More evaluations are allowed than there are sub-networks: the search ends all the same."""
    choices = {"hidden_size": [12, 24], "intermediate_size": [10, 20], "num_hidden_layers": [1, 2]}
    tiny = space_of("gpt_neox", choices)
    context, questions = searched(way, tiny, budget=50)
    assert set(context.asked) <= set(tiny) and len(questions) <= 50 * machinery.REPEATS + 1
    if way in ("random", "local", "evolution"):
        assert set(context.asked) == set(tiny)


def test_evolution_finds_better_ones_than_chance() -> None:
    """Averaged over seeds, at the same number of evaluations."""
    units = Range(min=1)
    wide = space_of("gpt_neox", SIZES | {"intermediate_size": units})
    found = sorted(n for n in counts(wide, list(wide)) if n)
    within = Bin(found[0], found[len(found) // 2])
    best = {}
    for way, settings in (("random", {}), ("evolution", {"crossover": 0.3})):
        runs = [searched(way, wide, within=within, budget=24, seed=seed, **settings)[0] for seed in range(6)]
        best[way] = np.mean([min(one.loss for one in run.asked.values()) for run in runs])
    assert best["evolution"] < best["random"]


def test_children_differ_in_one_size_or_come_from_two_parents() -> None:
    context, _ = searched("random", SPACE, budget=5)
    rng_sizes = list(context.asked)
    for sizes in rng_sizes:
        child = context.mutated(sizes)
        assert sum(a != b for a, b in zip(child, sizes)) == 1
        assert all(value in values for value, values in zip(child, SPACE.values))
    one, other = rng_sizes[0], rng_sizes[1]
    children = {context.crossed(one, other) for _ in range(200)}
    assert all(c in (a, b) for child in children for c, a, b in zip(child, one, other))
    assert len(children) == 2 ** sum(a != b for a, b in zip(one, other))


def test_strata_are_visited_alike() -> None:
    _, questions = searched("stratified", SPACE, budget=30, strata=3)
    parts = linear_bins(POSSIBLE[0], POSSIBLE[-1], 3)
    visited = [next(i for i, part in enumerate(parts) if n in part) for n in counts(SPACE, questions[:12])]
    assert visited == [0, 1, 2] * 4


def test_local_search_begins_with_the_corners_and_stays_near_the_front() -> None:
    _, questions = searched("local", SPACE, budget=20)
    middle = tuple(values[len(values) // 2] for values in SPACE.values)
    assert questions[:3] == [SPACE.full, middle, tuple(values[0] for values in SPACE.values)]
    measure = loss_of(SPACE)
    for number, sizes in enumerate(questions[3:-1], 3):
        before = list(dict.fromkeys(questions[:number]))
        points = np.array([[measure(s).loss, SPACE.parameters(s)] for s in before])
        front = [before[i] for i in fronts(points)[0]]
        assert any(sum(a != b for a, b in zip(sizes, member)) == 1 for member in front)


def test_nsga_sorts_by_front_and_keeps_each_once() -> None:
    context, _ = searched("random", SPACE, budget=14)
    members = list(context.asked)
    ordered = sorted_members(context, [*members, *members[:5]])
    assert sorted(ordered) == sorted(members)
    points = np.array([[context.asked[s].loss, context.asked[s].parameters] for s in members])
    level = {members[i]: number for number, front in enumerate(fronts(points)) for i in front}
    assert [level[s] for s in ordered] == sorted(level.values())
    assert len(set(level.values())) > 1
