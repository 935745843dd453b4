"""Random numbers of a tensor: a stream of its own, whatever else is drawn and in which order."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def generator_of(seed: int, name: str) -> torch.Generator:
    """The stream of the tensor `name` under a seed."""
    import torch

    value = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(value, "little"))
