"""A run killed with SIGKILL at any moment, also inside a save, continues as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import training_tiny as tiny


def killed_runs(folder: Path, runs: int, seed: int) -> None:
    script = Path(__file__).with_name("training_kills.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(runs), str(seed)],
        capture_output=True,
        text=True,
        env=tiny.environment(),
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert len(report) == runs
    assert sum(run["kills"] for run in report) >= runs, "hardly any run was killed"
    assert any(run["resumed from"] for run in report), "no run was killed after a checkpoint"
    for run in report:
        assert run["finished"], run
        assert run["same weights"], run
        assert run["same curve"], run
        assert not run["left over"], run


def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    killed_runs(tmp_path, runs=4, seed=0)


@pytest.mark.slow
def test_twenty_killed_runs_equal_the_uninterrupted_one(tmp_path: Path) -> None:
    killed_runs(tmp_path, runs=20, seed=1)
