"""Two processes learn from a teacher like one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import training_taught as taught
import training_tiny as tiny

from warmstart.foundation.events import EventLog


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    """With sharded parameters, of which the loss needs the head whole."""
    changes = {"gradient_accumulation_steps": 2, "max_steps": 4, "eval_steps": 1, "distributed": "fsdp2"}
    table = {"until": 0.6, "schedule": "linear", "top_k": 9, "temperature": 2.0}
    alone = taught.run(tmp_path / "one", table=table, per_device_train_batch_size=4, **changes)
    script = Path(taught.__file__)
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29760"]
    given = [json.dumps({**changes, "per_device_train_batch_size": 2}), json.dumps(table)]
    done = subprocess.run(
        [sys.executable, *launch, str(script), str(tmp_path / "two"), *given],
        capture_output=True,
        text=True,
        env=tiny.environment(),
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    points = EventLog(tmp_path / "two/events.jsonl").read("evaluation")
    expected = [(point.bpb, point.flops) for point in alone.curve.points]
    for point, (bpb, flops) in zip(points, expected, strict=True):
        assert point["bpb"] == pytest.approx(bpb, abs=1e-5)
        assert point["flops"] == flops
