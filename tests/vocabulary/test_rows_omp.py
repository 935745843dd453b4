"""Orthogonal Matching Pursuit against its definition: a loop with one least-squares fit per step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from aux_worlds import byte_bpe, context, english
from vocab_donors import save_donor

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.rows._base import RowContext
from warmstart.vocabulary.rows.omp import OmpSettings, omp, pursuit


def naive(goal: np.ndarray, atoms: np.ndarray, k: int, tolerance: float, unit_atoms: bool) -> np.ndarray:
    weights, chosen, residual = np.zeros(len(atoms)), [], goal.copy()
    length = np.linalg.norm(atoms, axis=1) if unit_atoms else np.ones(len(atoms))
    while len(chosen) < min(k, *atoms.shape) and np.linalg.norm(residual) > tolerance * np.linalg.norm(goal):
        score = np.abs(atoms @ residual) / length
        score[chosen] = -1
        chosen.append(int(score.argmax()))
        fit = np.linalg.lstsq(atoms[chosen].T, goal, rcond=None)[0]
        residual = goal - fit @ atoms[chosen]
    if chosen:
        weights[chosen] = fit
    return weights


@pytest.mark.parametrize("unit_atoms", [True, False])
@pytest.mark.parametrize("shape", [(40, 12, 6), (9, 12, 64), (60, 7, 64)])
def test_coefficients_equal_the_loop(shape: tuple[int, int, int], unit_atoms: bool) -> None:
    count, width, k = shape
    rng = np.random.default_rng(count)
    atoms = rng.standard_normal((count, width)) * rng.uniform(0.2, 5, (count, 1))
    goals = rng.standard_normal((33, width))
    goals[0] = 0
    goals[1] = 2 * atoms[4]  # finished after one step
    for memory in (1 << 28, 1 << 14):  # one block, many blocks
        found = pursuit(goals, atoms, k, tolerance=1e-3, unit_atoms=unit_atoms, memory=memory)
        for goal, got in zip(goals, found.toarray()):
            np.testing.assert_allclose(got, naive(goal, atoms, k, 1e-3, unit_atoms), atol=1e-8)
    sizes = np.diff(found.indptr)
    assert sizes[0] == 0 and sizes[1] == (1 if unit_atoms else sizes[1]) and sizes.max() <= min(shape)


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of five atoms, the last one shorter."""
    rng = np.random.default_rng(3)
    atoms = rng.standard_normal((24, 12)) * rng.uniform(0.2, 5, (24, 1))
    goals = rng.standard_normal((20, 12))
    monkeypatch.setattr("warmstart.vocabulary.rows.omp._TILE", 5)
    for unit_atoms in (True, False):
        found = pursuit(goals, atoms, 6, unit_atoms=unit_atoms).toarray()
        for goal, got in zip(goals, found):
            np.testing.assert_allclose(got, naive(goal, atoms, 6, 1e-3, unit_atoms), atol=1e-8)


def test_atoms_that_repeat_each_other_end_the_search_instead_of_dividing_by_nothing() -> None:
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((2, 8))
    atoms = np.concatenate([rng.standard_normal((20, 2)) @ plane, np.zeros((1, 8))])
    goals = rng.standard_normal((5, 8))
    found = pursuit(goals, atoms, 8, tolerance=0)
    inside = goals @ np.linalg.pinv(plane) @ plane
    assert np.diff(found.indptr).max() <= 2 and np.abs(found.data).max() < 1e3
    np.testing.assert_allclose(found @ atoms, inside, atol=1e-9)


def test_float32_atoms_lose_little() -> None:
    rng = np.random.default_rng(1)
    atoms, goals = rng.standard_normal((300, 24)), rng.standard_normal((20, 24))
    wide = pursuit(goals, atoms, 8) @ atoms
    narrow = pursuit(goals.astype(np.float32), atoms.astype(np.float32), 8) @ atoms
    np.testing.assert_allclose(narrow, wide, atol=1e-4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[RowContext, np.ndarray, np.ndarray, str]:
    texts = english()[:500]
    made = context(byte_bpe(texts[:250], 500), byte_bpe(texts[250:], 600))
    rng = np.random.default_rng(1)
    rows, head = rng.standard_normal((2, made.shape[0], 8))
    rows[made.vocab.new[:3]] = 0
    folder = tmp_path_factory.mktemp("donor")
    return made, rows, head, save_donor(folder / "d", made.target_tokenizer, rows, head)


def test_a_source_that_is_a_linear_image_of_the_donor_is_recovered(
    world: tuple[RowContext, np.ndarray, np.ndarray, str],
) -> None:
    """With k = f the donor's rows are rebuilt exactly, so any linear map of them is too, in both matrices."""
    made, rows, head, name = world
    overlap, new = made.vocab.overlap, made.vocab.new[3:]
    maps = dict(zip(("input", "head"), np.random.default_rng(2).standard_normal((2, 8, 5))))
    made.head_rows = np.zeros_like(made.rows)
    for setting, second in (("own", head), ("input", rows)):
        mix = omp(made, OmpSettings(donor=name, k=8, tolerance=0, head=setting)).check()
        assert isinstance(mix, ComputedMix) and mix.fallback[made.vocab.new[:3]].all()
        for which, basis in (("input", rows), ("head", second)):
            source = np.zeros((made.shape[1], 5))
            source[overlap[:, 1]] = basis[overlap[:, 0]] @ maps[which]
            got = mix.apply(source, rng=np.random.default_rng(0), which=which)
            np.testing.assert_allclose(got[new], basis[new] @ maps[which], atol=1e-8)
    made.head_rows = None
    mix = omp(made, OmpSettings(donor=name))
    assert isinstance(mix, ComputedMix)
    assert mix.compute.coefficients["head"] is mix.compute.coefficients["input"]  # type: ignore[attr-defined]


def test_few_atoms_equal_the_loop_and_copies_win(
    world: tuple[RowContext, np.ndarray, np.ndarray, str],
) -> None:
    made, rows, _, name = world
    overlap = made.vocab.overlap
    mix = omp(made, OmpSettings(donor=name, k=3)).with_copies(overlap).check()
    got = mix.apply(made.rows, rng=np.random.default_rng(0))
    for token in made.vocab.new[3::9]:
        weights = naive(rows[token], rows[overlap[:, 0]], 3, 1e-3, True)
        np.testing.assert_allclose(got[token], weights @ made.rows[overlap[:, 1]], atol=1e-5)
        assert 0 < (weights != 0).sum() <= 3
    assert np.array_equal(got[overlap[:, 0]], made.rows[overlap[:, 1]])


def test_another_tokenizer_ends_in_one_sentence(
    world: tuple[RowContext, np.ndarray, np.ndarray, str], tmp_path: Path
) -> None:
    made, rows, _, _ = world
    other = save_donor(tmp_path / "o", made.source_tokenizer, rows[: made.shape[1]])
    with pytest.raises(UserError, match="the tokenizer of the donor is not the new tokenizer"):
        omp(made, OmpSettings(donor=other))
    with pytest.raises(UserError, match="'donor' is required"):
        OmpSettings.parse({"k": 3})
