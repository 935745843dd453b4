"""What the measurements were made on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from pathlib import Path
from typing import Any

_PACKAGES = ("warmstart", "torch", "transformers", "tokenizers", "accelerate", "numpy")


def machine(*, measure_peak: bool = False) -> dict[str, Any]:
    """Processor, memory, accelerators and versions, for results and `doctor`.

    Args:
        measure_peak: Also time matrix products (about a second): `peak_gflops` by precision.

    Returns:
        `processor`, `cores` (those this process may use), `threads` (of torch), `memory_gb`, `gpus` (names),
        `bf16` (whether the processor or GPU computes in bfloat16 rather than emulating it), `system`,
        `python`, `versions`.
    """
    import psutil
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus,
        "bf16": torch.cuda.is_bf16_supported() if gpus else _bf16_on_cpu(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }
    if measure_peak:
        found["peak_gflops"] = {"float32": matmul_gflops("float32"), "bfloat16": matmul_gflops("bfloat16")}
    return found


def matmul_gflops(dtype: str = "float32", *, size: int = 1024, seconds: float = 0.4) -> float:
    """Best rate of square matrix products in 10^9 operations per second, `2 size^3` operations each.

    Args:
        dtype: Name of a torch type.
        size: Rows and columns.
        seconds: How long to try; the best of all products counts.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.randn(size, size, device=device).to(getattr(torch, dtype))
    out = torch.empty_like(a)
    torch.mm(a, a, out=out)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(a, a, out=out)
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return round(2 * size**3 / best / 1e9, 1)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _bf16_on_cpu() -> bool:
    info = Path("/proc/cpuinfo")
    if info.exists():
        return any(flag in info.read_text() for flag in ("avx512_bf16", "amx_bf16", " bf16 "))
    return platform.machine() == "arm64"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
