"""The benchmark of optimizers: what it measures is what the formulas say, with and without peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "optimizer_memory.py"
SIZES = {"hidden": 12, "middle": 20, "layers": 2, "vocab": 30, "rounds": 2, "threads": 1}
SMALL = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]
PEER = '''
import torch

class GaLoreAdamW(torch.optim.Optimizer):
    """Keeps one tensor of 7 values in the state and one of 5 in an object, for each parameter."""

    def __init__(self, groups, no_deprecation_warning):
        assert groups[1]["rank"] == 3 and groups[1]["update_proj_gap"] == 200 and no_deprecation_warning
        super().__init__(groups, {"lr": 0.1})

    def step(self):
        holder = type("Projector", (), {})
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"step": 1, "moment": torch.zeros(7), "projector": holder()}
                self.state[p]["projector"].matrix = torch.zeros(5)
'''


def measured(folder: Path, *more: str) -> Any:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *SMALL, *more],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout) if "--json" in more else done.stdout


def test_bytes_are_those_of_the_formulas_and_peers_are_measured_alike(tmp_path: Path) -> None:
    (tmp_path / "galore_torch.py").write_text(PEER)
    (tmp_path / "apollo_torch.py").write_text("raise RuntimeError('no peer here')")
    result = measured(tmp_path, "--json")
    rows, matrices = result["optimizers"], 2 * 7
    values = 2 * (4 * 12 * 12 + 3 * 12 * 20)
    assert result["parameters"] == values + 2 * 30 * 12 + 2 * 2 * 12
    assert rows["adamw"]["formula_bytes"] == 8 * values
    assert rows["adamw"]["state_bytes"] == 8 * result["parameters"] + 4 * (matrices + 6)  # with counts
    r, m, n = 3, 12, (12, 20)
    wanted = {
        "galore": 2 * (4 * (m * r + 2 * n[0] * r) + 3 * (m * r + 2 * n[1] * r)),
        "apollo": 2 * (4 * 2 * n[0] * r + 3 * 2 * n[1] * r),
        "apollo-mini": 2 * (4 * 2 * n[0] + 3 * 2 * n[1]),
        "adafactor": 2 * (4 * 24 + 3 * 32),
    }
    for name, count in wanted.items():
        assert rows[name]["formula_bytes"] == 4 * count
        beside = 4 * matrices * (1 + name.startswith("apollo"))  # the count, and the limiter's length
        assert rows[name]["matrix_bytes"] == 4 * count + beside, name
    assert rows["galore-torch"]["matrix_bytes"] == matrices * 4 * 12
    assert rows["galore-torch"]["state_bytes"] == (matrices + 6) * 4 * 12
    assert result["missing"] == ["apollo-torch: no peer here"] and "apollo-torch" not in rows
    assert all(row["milliseconds"] > 0 and row["ratio"] > 0 for row in rows.values())
    assert rows["adamw"]["ratio"] == pytest.approx(1)


def test_the_table_has_a_line_per_optimizer_and_per_missing_peer(tmp_path: Path) -> None:
    for name in ("galore_torch", "apollo_torch"):
        (tmp_path / f"{name}.py").write_text("import nothing_of_this_name")
    lines = measured(tmp_path, "--rank", "2").splitlines()
    assert "rank 2, 1 threads, median of 2 rounds" in lines[0]
    assert [line.split()[0] for line in lines[2:9]] == [
        "adamw", "adafactor", "apollo", "apollo-mini", "fira", "galore", "restarts",
    ]  # fmt: skip
    assert len(lines) == 11 and all("not measured: " in line for line in lines[9:])


def test_impossible_sizes_are_refused_in_one_sentence() -> None:
    command = [sys.executable, str(SCRIPT), "--hidden", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "must be positive" in done.stderr and "Traceback" not in done.stderr
