"""The benchmark of losses: every optimizer learns from the same start, and missing peers are named."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "optimizer_loss.py"
SIZES = {"hidden": 8, "layers": 1, "vocab": 300, "steps": 3, "threads": 1}
SMALL = [word for name, value in SIZES.items() for word in (f"--{name}", str(value))]


def test_all_learn_the_same_text() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *SMALL, "--rates", "1e-9", "0.02", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["tokens"] == 3 * 8 * 128
    losses = found["bits_per_byte"]
    assert {"adamw", "galore", "fira", "apollo"} <= losses.keys()
    starts = [rates["1e-09"] for rates in losses.values()]
    assert max(starts) - min(starts) < 1e-4 < starts[0] < math.log2(300)
    assert all(rates["0.02"] < rates["1e-09"] - 0.001 for rates in losses.values())
    peers = {"galore-torch", "apollo-torch"}
    assert all(any(reason.startswith(name) for reason in found["missing"]) for name in peers - losses.keys())


def test_senseless_sizes_are_refused() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "--hidden", "6"], capture_output=True, text=True)
    assert done.returncode == 2 and "multiple of 4" in done.stderr
