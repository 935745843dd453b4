"""The benchmark of rows: its inputs, our side of it, its comparison, and a run where no peer is installed."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SMALL = [
    "--source",
    "300",
    "--target",
    "80",
    "--width",
    "24",
    "--dim",
    "8",
    "--donor-width",
    "16",
    "--k",
    "3",
]


@pytest.fixture(scope="module")
def modules() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        names = ("rows_inputs", "rows_sides", "rows_speed")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})


@pytest.fixture(scope="module")
def data(modules: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("inputs")
    modules.rows_inputs.write_inputs(folder, 300, 80, 24, 8, 16)
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


def test_inputs_hold_what_they_promise(data: dict[str, np.ndarray]) -> None:
    pairs = data["pairs"]
    assert data["rows"].shape == (300, 24) and data["donor"].shape == (80, 16)
    assert len(pairs) == 40 == len(set(pairs[:, 0])) == len(set(pairs[:, 1]))
    assert np.array_equal(data["rows"][pairs[:, 1], :16], data["donor"][pairs[:, 0]])
    assert np.flatnonzero(~data["target_vectors"].any(axis=1)).tolist() == [0, 50]


def test_our_side_copies_shared_tokens_and_rebuilds_the_others(
    modules: Any, data: dict[str, np.ndarray]
) -> None:
    """With as many atoms as dimensions the donor's rows are rebuilt whole, and so the source's first part."""
    donor, pairs = data["donor"], data["pairs"]
    new = np.setdiff1d(np.arange(80), pairs[:, 0])
    rows = {k: modules.rows_sides.ours("omp", data, k) for k in (3, 16)}
    np.testing.assert_allclose(rows[16][new, :16], donor[new], atol=1e-5)
    assert 0.1 < modules.rows_speed.unbuilt(rows[3], donor, new) < 1
    cosine = donor[new] @ donor[pairs[:, 0]].T
    cosine /= np.linalg.norm(donor[new], axis=1)[:, None] * np.linalg.norm(donor[pairs[:, 0]], axis=1)
    cosine[cosine < np.sort(cosine, axis=1)[:, [-3]]] = 0
    weight = np.maximum(cosine, 0) / np.maximum(cosine, 0).sum(axis=1, keepdims=True)
    rows[0] = modules.rows_sides.ours("clp", data, 3)
    np.testing.assert_allclose(rows[0][new], weight @ data["rows"][pairs[:, 1]], atol=1e-6)
    for found in rows.values():
        assert np.array_equal(found[pairs[:, 0]], data["rows"][pairs[:, 1]])


@pytest.mark.parametrize("method", ["wechsel", "focus"])
def test_drawn_rows_are_not_compared(modules: Any, data: dict[str, np.ndarray], method: str) -> None:
    rows = modules.rows_sides.ours(method, data, 3)
    copied = np.isin([0, 50], data["pairs"][:, 0]) & (method == "focus")
    other = rows.copy()
    other[[0, 50]] += 1
    other[7] += 2e-5
    found = modules.rows_speed.compare(method, data, rows, other)
    assert found["rows_compared"] == 78 + copied.sum() and found["rows_beyond"] == 1 + copied.sum()


def test_difference_of_omp_is_a_share_of_the_row(modules: Any, data: dict[str, np.ndarray]) -> None:
    rows = modules.rows_sides.ours("omp", data, 3)
    other = rows.copy()
    other[3] *= 1.01
    other[4] *= 1.0001
    found = modules.rows_speed.compare("omp", data, rows, other)
    assert found["rows_compared"] == 80 and found["rows_beyond"] == 1
    assert found["max_difference"] == pytest.approx(0.01, rel=1e-3)
    new = np.setdiff1d(np.arange(80), data["pairs"][:, 0])
    goal = data["donor"][new]
    share = np.linalg.norm(goal - rows[new, :16], axis=1) / np.linalg.norm(goal, axis=1)
    assert found["unbuilt_ours"] == pytest.approx(share.mean(), rel=1e-5)


def test_a_missing_peer_leaves_our_figures_and_a_line(modules: Any, tmp_path: Path) -> None:
    (tmp_path / "mergekit.py").write_text("raise ImportError('no peer here')")
    command = [sys.executable, str(FOLDER / "rows_speed.py"), *SMALL, "--methods", "omp", "--threads", "1"]
    done = subprocess.run(
        [*command, "--json", "--rounds", "2"],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (result,) = json.loads(done.stdout)
    matrices = 4 * (300 + 80) * 24 / 2**20
    assert result["peak_mib"]["ours"] - result["beyond_mib"]["ours"] == pytest.approx(matrices, abs=1)
    assert len(result["seconds"]["ours"]) == 2 and "ratio" not in result
    options = SimpleNamespace(source=300, target=80, width=24, donor_width=16, k=3, threads=1, rounds=2)
    text = modules.rows_speed.table(result, options)
    assert "no peer measured: no peer here" in text and "theirs" not in text
    assert "within 3 GiB beyond source and target rows: ours yes" in text


def test_impossible_sizes_are_refused_in_one_sentence() -> None:
    command = [sys.executable, str(FOLDER / "rows_speed.py"), *SMALL, "--k", "41"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "must not exceed" in done.stderr and "Traceback" not in done.stderr
