"""Two processes on CPUs (gloo), with DDP and with FSDP2, train like one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import training_tiny as tiny

from warmstart.foundation.events import EventLog

CHANGES = {"gradient_accumulation_steps": 2, "max_steps": 10, "eval_steps": 1, "save_steps": 4}


def two_processes(folder: Path, kind: str, port: int, **changes: object) -> None:
    script = Path(__file__).with_name("training_tiny.py")
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    done = subprocess.run(
        [sys.executable, *launch, str(script), str(folder), kind, json.dumps({**CHANGES, **changes})],
        capture_output=True,
        text=True,
        env=tiny.environment(),
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def losses(folder: Path) -> list[float]:
    return [event["bpb"] for event in EventLog(folder / "events.jsonl").read("evaluation")]


@pytest.mark.parametrize(
    ("distributed", "kind"), [("ddp", "bert"), ("fsdp2", "llama")], ids=["ddp-masked", "fsdp2-causal"]
)
def test_two_processes_train_like_one(tmp_path: Path, distributed: str, kind: str) -> None:
    model = tiny.bert(dropout=0.0) if kind == "bert" else tiny.llama()
    alone = tiny.run(tmp_path / "one", model=model, per_device_train_batch_size=4, **CHANGES)
    port = 29_700 + 2 * (distributed == "ddp")
    two_processes(tmp_path / "two", kind, port, per_device_train_batch_size=2, distributed=distributed)
    expected = [point.bpb for point in alone.curve.points]
    assert len(expected) == 11 and expected[-1] < expected[0] - 1e-3
    assert losses(tmp_path / "two") == pytest.approx(expected, abs=1e-5)
    # What two processes saved, one continues.
    shutil.rmtree(tmp_path / "two/checkpoints/step-10")
    again = tiny.bert(dropout=0.0) if kind == "bert" else tiny.llama()
    rest = tiny.run(
        tmp_path / "two", model=again, per_device_train_batch_size=4, distributed=distributed, **CHANGES
    )
    assert [point.bpb for point in rest.curve.points] == pytest.approx(expected, abs=1e-5)
    assert rest.steps == 10
