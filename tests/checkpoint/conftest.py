"""Checkpoints on disk for the tests, and a cache of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_checkpoints import tiny_model, tokenizer_for

from warmstart.checkpoint import Lineage, save_checkpoint


@pytest.fixture
def make(tmp_path):
    """`make("llama", max_shard_size="8KB")` writes a checkpoint and returns its folder."""

    def build(family: str = "llama", name: str = "model", options=None, **kwargs) -> Path:
        model = tiny_model(family, **(options or {}))
        lineage = kwargs.pop("lineage", None) or Lineage.of(
            "train", {"learning_rate": 0.1}, data={"c": "f" * 16}
        )
        save_checkpoint(tmp_path / name, model, tokenizer_for(family), lineage=lineage, **kwargs)
        return tmp_path / name

    return build


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """What is remembered about files belongs to one test."""
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
