"""Kill training runs with SIGKILL at random moments and resume them; prints one JSON object.

A process of its own that has imported everything once and forks each run, so that a kill costs no start-up.

    python training_kills.py FOLDER RUNS SEED
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
import training_tiny as tiny

from warmstart.foundation import files
from warmstart.training import state

CHANGES = {"max_steps": 24, "save_steps": 2, "eval_steps": 5, "logging_steps": 3, "save_total_limit": 2}


def child(folder: Path, suicide: int | None) -> int:
    """Fork a run; with `suicide` it kills itself at that write, sync or rename of a save."""
    pid = os.fork()
    if pid:
        return pid
    if suicide is not None:
        count = 0

        def deadly(work):
            def wrapper(*args, **kwargs):
                nonlocal count
                count += 1
                if count == suicide:
                    os.kill(os.getpid(), signal.SIGKILL)
                return work(*args, **kwargs)

            return wrapper

        files._sync = deadly(files._sync)
        state.save_file = deadly(state.save_file)
        state._write = deadly(state._write)
        Path.rename = deadly(Path.rename)
    code = 1
    try:
        tiny.run(folder, model=tiny.llama(dropout=0.2), **CHANGES)
        code = 0
    finally:
        os._exit(code)


def main() -> None:
    torch.set_num_threads(1)
    home, runs, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    begin = time.monotonic()
    assert os.waitpid(child(home / "whole", None), 0)[1] == 0
    seconds = time.monotonic() - begin
    report = []
    for number in range(runs):
        folder, kills, status = home / f"run-{number}", 0, -1
        for _ in range(2):
            inside = number % 2 == 1  # every other run dies inside a save
            pid = child(folder, rng.randrange(1, 60) if inside else None)
            if not inside:
                time.sleep(rng.random() * seconds)
                os.kill(pid, signal.SIGKILL)
            status = os.waitpid(pid, 0)[1]
            kills += int(os.WIFSIGNALED(status))
        found = sorted(path.name for path in folder.glob("checkpoints/step-*"))
        status = os.waitpid(child(folder, None), 0)[1]
        last = f"checkpoints/step-{CHANGES['max_steps']}"
        report.append(
            {
                "kills": kills,
                "resumed from": found,
                "finished": status == 0,
                "same weights": tiny.same_bits(home / "whole" / last, folder / last),
                "same curve": tiny.curve(home / "whole") == tiny.curve(folder),
                "left over": [p.name for p in (folder / "checkpoints").iterdir() if p.name.startswith(".")],
            }
        )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
