"""Two processes on CPUs (gloo) train with an optimizer for whole matrices like one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import training_tiny as tiny
from optimizer_twins import LEAN

from warmstart.foundation.events import EventLog


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"optimizer": LEAN["fira"], "max_steps": 8, "eval_steps": 1, "save_steps": 8}
    alone = tiny.run(tmp_path / "one", per_device_train_batch_size=4, **changes)
    script = Path(tiny.__file__)
    given = json.dumps({**changes, "per_device_train_batch_size": 2, "distributed": "ddp"})
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29737"]
    done = subprocess.run(
        [sys.executable, *launch, str(script), str(tmp_path / "two"), "llama", given],
        capture_output=True, text=True, env=tiny.environment(), timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    expected = [point.bpb for point in alone.curve.points]
    found = [event["bpb"] for event in EventLog(tmp_path / "two/events.jsonl").read("evaluation")]
    assert len(found) == 9 and found == pytest.approx(expected, abs=1e-4)
