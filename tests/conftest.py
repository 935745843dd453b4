"""Shared by all tests: no network, caches of their own, few threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before any library reads them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.pop("WARMSTART_DATA", None)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder for the whole session, so that tests neither use nor fill the user's."""
    shared = os.environ.get("WARMSTART_TEST_CACHE")
    folder = Path(shared) if shared else tmp_path_factory.getbasetemp().parent / "warmstart-cache"
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["WARMSTART_CACHE"] = str(folder)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Numbers that do not depend on how many cores a machine has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
