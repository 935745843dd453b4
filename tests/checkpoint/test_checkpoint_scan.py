"""The scan for NaN and infinite weights against torch, for every floating type."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from warmstart.checkpoint.headers import read_header
from warmstart.checkpoint.verify import _finite


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_scan_agrees_with_torch(tmp_path, dtype):
    generator = np.random.default_rng(0)
    for special in (None, float("nan"), float("inf"), float("-inf"), float(torch.finfo(dtype).max)):
        tensor = torch.from_numpy(generator.normal(size=(7, 5))).to(dtype)
        if special is not None:
            tensor[3, 2] = special
        save_file({"a": tensor, "b": torch.ones(3, dtype=dtype)}, tmp_path / "t.safetensors")
        header = read_header(tmp_path / "t.safetensors")
        assert _finite(header["a"]) == bool(torch.isfinite(tensor).all())
        assert _finite(header["b"])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_the_scan_of_eight_bit_types(tmp_path, dtype):
    for code in range(256):  # every value that eight bits can hold
        tensor = torch.tensor([0, code, 0], dtype=torch.uint8).view(dtype)
        save_file({"a": tensor}, tmp_path / "t.safetensors")
        expected = bool(torch.isfinite(tensor.float()).all())
        assert _finite(read_header(tmp_path / "t.safetensors")["a"]) == expected
