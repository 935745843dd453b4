"""What steps keep on the disk."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from cli_runner import call

from warmstart.foundation.files import lock
from warmstart.recipes.cached import cached_steps, remove
from warmstart.recipes.runner import Runner


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path))
    (tmp_path / "text.txt").write_text("\n".join(f"the cat {i} sees a dog" for i in range(300)) + "\n")
    given = {"corpus": str(tmp_path / "text.txt"), "kind": "bpe"}
    for size in (280, 300):
        Runner().step("tokenizer", given | {"vocab_size": size})
    (tmp_path / "steps" / "train-0123").mkdir()
    (tmp_path / "steps" / "train-0123" / "part").write_bytes(b"x" * 5000)
    return tmp_path / "steps"


def old(folder: Path, days: float) -> None:
    for path in (folder, *folder.iterdir()):
        os.utime(path, (time.time() - days * 86400,) * 2)


def test_sizes_and_ages_by_type(cache: Path) -> None:
    old(cache / "train-0123", 9)
    found = {row["type"]: row for row in json.loads(call("cache", "--json").out)["types"]}
    assert found["tokenizer"]["steps"] == 2 and not found["tokenizer"]["unfinished"]
    assert found["train"]["unfinished"] == 1 and 5000 <= found["train"]["bytes"] < 6000
    assert found["train"]["idle_days"] == pytest.approx(9, abs=0.01)
    aged = json.loads(call("cache", "--older-than", "8", "--json").out)
    assert [row["type"] for row in aged["types"]] == ["train"] and not aged["removed"]
    assert "--remove" in call("cache").out and (cache / "train-0123").is_dir()


def test_removed_steps_are_made_again(cache: Path) -> None:
    found = json.loads(call("cache", "--type", "tokenizer", "--remove", "--json").out)
    assert found["removed"] and found["bytes"] > 0
    assert [path.name for path in cache.iterdir()] == ["train-0123"]
    given = {"corpus": str(cache.parent / "text.txt"), "kind": "bpe", "vocab_size": 280}
    assert (Runner().step("tokenizer", given) / "tokenizer.json").is_file()


def test_a_step_in_use_stays(cache: Path) -> None:
    step = next(one for one in cached_steps() if one.type == "train")
    with lock(step.folder):
        assert remove([step]) == 0
    assert (step.folder / "part").is_file() and remove([step]) == step.size and not step.folder.exists()


def test_what_is_taken_from_the_cache_counts_as_used(cache: Path) -> None:
    one = next(step for step in cached_steps() if step.type == "tokenizer")
    old(one.folder, 30)
    size = json.loads((one.folder / "step.json").read_text())["settings"]["vocab_size"]
    assert next(s for s in cached_steps() if s.folder == one.folder).idle_days > 29
    given = {"corpus": str(cache.parent / "text.txt"), "kind": "bpe", "vocab_size": size}
    Runner().step("tokenizer", given)
    assert next(s for s in cached_steps() if s.folder == one.folder).idle_days < 1


def test_an_unknown_type_is_refused(cache: Path) -> None:
    found = call("cache", "--type", "trian")
    assert found.code == 2 and "did you mean 'train'" in found.err
