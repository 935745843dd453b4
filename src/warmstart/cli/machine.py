"""What `warmstart doctor` looks at. Each check gives one row: name, `ok` or `warn`, value, advice."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from warmstart import __version__
from warmstart.cli.tables import size

if TYPE_CHECKING:
    import torch

Row = dict[str, str]
_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "huggingface_hub", "numpy")
_OPTIONAL = {
    "datasets": "data sets of the hub: pip install 'warmstart[datasets]'",
    "tensorboard": "report_to: tensorboard: pip install 'warmstart[trackers]'",
}


def checks(*, measure: bool = True) -> list[Row]:
    """All rows. `measure` times two matrix products, which takes about two seconds."""
    groups: list[Callable[[], Iterator[Row]]] = [_versions, _cpu, _gpu, _memory, _folders, _hub]
    rows = [row for group in groups for row in group()]
    if measure:
        at = next(i for i, row in enumerate(rows) if row["name"] == "threads") + 1
        rows[at:at] = list(_speed())
    return rows


def _row(name: str, value: object, advice: str = "") -> Row:
    return {"name": name, "status": "warn" if advice else "ok", "value": str(value), "advice": advice}


def _versions() -> Iterator[Row]:
    yield _row("warmstart", __version__)
    yield _row("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in _PACKAGES:
        yield _row(package, metadata.version(package))
    for package, purpose in _OPTIONAL.items():
        if importlib.util.find_spec(package):
            yield _row(package, metadata.version(package))
        else:
            yield _row(package, "not installed", f"needed only for {purpose}")


def _cpu() -> Iterator[Row]:
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    advice = ""
    if threads > usable:
        advice = f"more threads than usable cores slow training down: set OMP_NUM_THREADS={usable}"
    elif threads < usable:
        advice = (
            f"{usable - threads} of {usable} cores stay idle: unset OMP_NUM_THREADS or set it to {usable}"
        )
    yield _row("processor", processor())
    yield _row("threads", f"{threads} of {usable} usable cores", advice)


def processor() -> str:
    """Model name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _speed() -> Iterator[Row]:
    import torch

    plain = matmul_gflops(torch.float32)
    yield _row("float32 matmul", f"{plain:,.0f} GFLOP/s")
    try:
        half = matmul_gflops(torch.bfloat16)
    except RuntimeError:
        yield _row("bf16 matmul", "not supported", "leave bf16 off")
        return
    slow = "no faster than float32 on this processor: leave bf16 off" if half < 1.1 * plain else ""
    yield _row("bf16 matmul", f"{half:,.0f} GFLOP/s, {half / plain:.1f} × float32", slow)


def matmul_gflops(dtype: torch.dtype, n: int = 1024, seconds: float = 0.8) -> float:
    """Best rate of an (n, n) × (n, n) product on the CPU within `seconds`, in 10⁹ operations per second."""
    import torch

    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best / 1e9


def _gpu() -> Iterator[Row]:
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            half = ", bf16" if torch.cuda.is_bf16_supported() else ", no bf16"
            name = torch.cuda.get_device_name(index)
            yield _row(f"gpu {index}", f"{name}, {size(free)} of {size(total)} free{half}")
    elif shutil.which("nvidia-smi"):
        yield _row("gpu", "present but not usable by torch", "install a torch build for your CUDA version")
    else:
        yield _row("gpu", "none: training runs on the CPU")


def _memory() -> Iterator[Row]:
    import psutil

    memory = psutil.virtual_memory()
    low = "close other programs: small models alone need about 2 GB" if memory.available < 2e9 else ""
    yield _row("memory", f"{size(memory.available)} of {size(memory.total)} available", low)


def _folders() -> Iterator[Row]:
    from warmstart.foundation.files import cache_home

    cache = cache_home()
    yield _place("cache folder", cache, 5e9)
    yield _place("current folder", Path.cwd(), 2e9)
    data = os.environ.get("WARMSTART_DATA")
    if not data:
        yield _row("data folder", "WARMSTART_DATA is not set: named data sets are downloaded when used")
    elif not Path(data).is_dir():
        yield _row("data folder", data, "WARMSTART_DATA names no folder: mend or unset it")
    else:
        names = sorted(p.name for p in Path(data).iterdir() if p.is_dir())
        yield _row("data folder", f"{data}: {', '.join(names) or 'empty'}")


def _place(name: str, folder: Path, needed: float) -> Row:
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    advice = ""
    if not os.access(place, os.W_OK):
        advice = "cannot be written" + (": set WARMSTART_CACHE to another folder" if "cache" in name else "")
    elif free < needed:
        advice = f"less than {size(needed)} free: a run may stop when the disk is full"
    return _row(name, f"{folder}, {size(free)} free", advice)


def _hub() -> Iterator[Row]:
    home = os.environ.get("HF_HOME") or str(Path("~/.cache/huggingface").expanduser())
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    mode = "offline: only what is in the cache" if offline else "online"
    yield _row("hub", f"{mode}; cache {home}")
