"""What a transplant costs: its seconds and its memory, measured in a process that does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.settings import TransplantSettings

_SAMPLE_SECONDS = 0.002
_PRELOADED = (
    "torch",
    "transformers",
    "scipy.sparse",
    "scipy.sparse.linalg",
    "warmstart.vocabulary.transplant",
)


class Cost(BaseModel):
    """Time and memory of one transplant."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seconds: float
    """From opening the source to the finished rows; libraries are loaded before, saving comes after."""
    peak_mb: float
    """Most resident memory, in 10^6 bytes, above that of the process with its libraries loaded. Source and
    target model are part of it. Sampled every 2 ms, so a shorter peak can be missed."""
    start_mb: float
    """Resident memory of the process with its libraries loaded."""


def measure_cost(settings: TransplantSettings) -> Cost:
    """Run a transplant in a process of its own, throw the checkpoint away and keep what it took.

    Raises:
        UserError: What the transplant itself raises.
    """
    command = [sys.executable, "-c", "from warmstart.recipes.cost import child; child()"]
    given = settings.model_dump_json(exclude_unset=True)
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        raise UserError(**json.loads(done.stdout.splitlines()[-1]))
    if done.returncode:
        raise RuntimeError(f"the measured transplant failed:\n{done.stderr[-2000:]}")
    return Cost.model_validate_json(done.stdout.splitlines()[-1])


def child() -> None:
    """The measured process: settings on standard input, the cost as the last line of standard output."""
    import importlib

    settings = TransplantSettings.model_validate_json(sys.stdin.read())
    import warmstart.recipes.sources  # noqa: F401  named sources become known to `resolve`

    for name in _PRELOADED:
        importlib.import_module(name)
    from warmstart.checkpoint import resolve
    from warmstart.vocabulary.transplant import transplant

    with tempfile.TemporaryDirectory() as folder, peak_memory() as peak:
        try:
            made = transplant(settings, Path(folder) / "out")
        except UserError as error:
            print(json.dumps({"what": error.what, "where": error.where, "fix": error.fix}))
            raise SystemExit(2) from None
        lineage = resolve(made.path).lineage
    assert lineage is not None
    seconds = float(lineage.measured["seconds"])
    cost = Cost(seconds=seconds, peak_mb=peak["above"] / 1e6, start_mb=peak["before"] / 1e6)
    print(cost.model_dump_json())


@contextmanager
def peak_memory() -> Iterator[dict[str, Any]]:
    """Sample this process's resident memory inside the block: `before`, and the most `above` it, in bytes."""
    import psutil

    process, stop = psutil.Process(), threading.Event()
    found = {"before": process.memory_info().rss, "above": 0}

    def watch() -> None:
        while not stop.is_set():
            found["above"] = max(found["above"], process.memory_info().rss - found["before"])
            time.sleep(_SAMPLE_SECONDS)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        stop.set()
        watcher.join()
