"""Tiny checkpoints on disk, and what their files hold."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from tiny_language_models import model_for, tokenizer_for

from warmstart.checkpoint import Lineage, save_checkpoint


def stored(folder: Path, family: str, dtype: torch.dtype = torch.float32) -> Path:
    """A tiny random model of a family, in several files."""
    tokenizer = tokenizer_for(family)
    model = model_for(family, len(tokenizer)).to(dtype)
    save_checkpoint(folder, model, tokenizer, lineage=Lineage.of("test"), max_shard_size="40KB")
    return folder


def tensors(folder: Path | str) -> dict[str, torch.Tensor]:
    """Everything that is stored, by name."""
    files = sorted(Path(folder).glob("*.safetensors"))
    return {name: t for file in files for name, t in load_file(file).items()}
