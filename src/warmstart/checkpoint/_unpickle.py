"""The child process of `convert`: imports nothing of warmstart, reads one file, writes one file."""

from __future__ import annotations

import contextlib
import ctypes
import json
import resource
import sys
from pathlib import Path
from typing import Any

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_MARGIN = 2 << 30  # for the loader itself, above what is mapped and four times the file


def _confine(size: int, seconds: int) -> None:
    mapped = 0
    with contextlib.suppress(OSError, ValueError):
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if mapped:
        resource.setrlimit(resource.RLIMIT_AS, (mapped + _MARGIN + 4 * size, mapped + _MARGIN + 4 * size))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * size + (1 << 20), 3 * size + (1 << 20)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):  # needs a system that lets users do this
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_NEW_NETWORK) != 0:
            libc.unshare(_NEW_USER | _NEW_NETWORK)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _tensors(data: Any) -> dict[str, Any]:
    import torch

    for key in ("state_dict", "model"):  # how training scripts wrap the weights
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not data:
        raise SystemExit("the file holds no table of weights")
    odd = [str(k) for k, v in data.items() if not isinstance(v, torch.Tensor)]
    if odd:
        raise SystemExit(f"the file holds something that is no tensor: {odd[0]}")
    return {str(name): tensor for name, tensor in data.items()}


def _once(tensors: dict[str, Any], tied: bool) -> dict[str, Any]:
    """Contiguous tensors, each storage under its first name: the embedding comes before the tied head."""
    kept: dict[str, Any] = {}
    seen: set[tuple[Any, ...]] = set()
    for name, tensor in tensors.items():
        place = (
            tensor.untyped_storage().data_ptr(),
            tensor.storage_offset(),
            tuple(tensor.shape),
            tensor.stride(),
        )
        if tied and tensor.numel() and place in seen:
            continue
        seen.add(place)
        kept[name] = tensor.contiguous().clone()
    return kept


def main() -> None:
    pickled, target, limits, tied = (
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        json.loads(sys.argv[3]),
        sys.argv[4] == "1",
    )
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    _confine(int(limits["bytes"]), int(limits["seconds"]))
    try:
        data = torch.load(pickled, map_location="cpu", weights_only=True)
    except Exception as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise SystemExit(f"{type(error).__name__}: {line}") from None
    save_file(_once(_tensors(data), tied), target, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
