"""Shards written tensor by tensor are what the safetensors library reads; interrupted writing goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from warmstart.checkpoint.headers import read_header, read_headers
from warmstart.checkpoint.shards import (
    Planned,
    TensorReader,
    parse_size,
    shards_of,
    type_name,
    write_shards,
)
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import atomic_folder

KINDS = (torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.float64, torch.uint8)


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 5), (7,), (), (2, 3, 4), (0, 4), (11, 13), (1,)]
    made = [torch.randn(shape, generator=generator) * 9 for shape in shapes]
    return {f"layer.{i}.weight": t.to(kind) for i, (t, kind) in enumerate(zip(made, KINDS))}


def planned(table: dict[str, torch.Tensor]) -> list[Planned]:
    return [Planned(name, type_name(t.dtype), tuple(t.shape)) for name, t in table.items()]


@pytest.mark.parametrize("size", ["5GB", "200B", "1B"])
@pytest.mark.parametrize("pieces", [False, True])
def test_the_library_reads_what_was_written(tmp_path: Path, size: str, pieces: bool) -> None:
    table = tensors()

    def produce(name: str) -> Any:
        return table[name].reshape(-1).split(4) if pieces else table[name]

    shards = shards_of(planned(table), size)
    hashes = write_shards(tmp_path, shards, produce)
    assert {file.name for file in tmp_path.glob("*.safetensors")} == set(hashes)
    found = {}
    for name, value in hashes.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == value
        found |= load_file(tmp_path / name)
        with safe_open(tmp_path / name, "pt") as file:
            assert file.metadata() == {"format": "pt"}
    assert found.keys() == table.keys()
    assert all(torch.equal(found[name], t) and found[name].dtype == t.dtype for name, t in table.items())
    headers = read_headers(tmp_path)  # compares the index with the shards
    assert (len(shards) == 1) is (size == "5GB") is ((tmp_path / "model.safetensors").is_file())
    reader = TensorReader(headers)
    for name, tensor in table.items():
        assert torch.equal(reader.read(name), tensor)
        parts = list(reader.pieces(name, 4))
        assert all(len(part) <= 4 for part in parts)
        assert not tensor.numel() or torch.equal(torch.cat(parts), tensor.reshape(-1))


def test_no_file_is_larger_than_asked_unless_one_tensor_is() -> None:
    plan = [Planned(f"t{i}", "F32", (size,)) for i, size in enumerate([10, 10, 30, 5, 5, 5, 100])]
    shards = shards_of(plan, "160B")
    assert [[t.shape[0] for t in shard.tensors] for shard in shards] == [[10, 10], [30, 5, 5], [5], [100]]
    assert shards[0].name == "model-00001-of-00004.safetensors"
    assert [parse_size(text) for text in ("5GB", "1.5 MB", "2GiB", "7", 9)] == [
        5 * 10**9,
        1_500_000,
        2**31,
        7,
        9,
    ]
    for text in ("5 apples", "", "0GB", "-1MB"):
        with pytest.raises(UserError, match="no size of a file"):
            parse_size(text)


def test_interrupted_writing_goes_on_behind_the_last_whole_shard(tmp_path: Path) -> None:
    table = tensors()
    shards, made = shards_of(planned(table), "100B"), Counter[str]()
    assert len(shards) > 3

    def stops(name: str) -> torch.Tensor:
        made[name] += 1
        if name == shards[2].tensors[-1].name and made[name] == 1:
            raise KeyboardInterrupt
        return table[name]

    for _ in range(2):
        try:
            with atomic_folder(tmp_path / "out", unfinished="key") as folder:
                hashes = write_shards(folder, shards, stops)
        except KeyboardInterrupt:
            kept = sorted(file.name for file in tmp_path.glob(".out.part-key/*.safetensors*"))
            assert kept == [shards[0].name, shards[1].name] and not (tmp_path / "out").exists()
    twice = {tensor.name for tensor in shards[2].tensors}
    assert made == {name: 2 if name in twice else 1 for name in table}
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    for name, value in hashes.items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == value
        read_header(tmp_path / "out" / name)


def test_a_wrong_tensor_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    for wrong in (torch.zeros(3), torch.zeros(4, dtype=torch.float64)):
        with pytest.raises(ValueError, match="in place of"):
            write_shards(tmp_path, shards_of([Planned("a", "F32", (4,))]), lambda _, t=wrong: t)
        assert list(tmp_path.iterdir()) == []


def test_a_truncated_shard_is_said_when_it_is_read(tmp_path: Path) -> None:
    write_shards(tmp_path, shards_of([Planned("a", "F32", (400,))]), lambda _: torch.zeros(400))
    reader = TensorReader(read_headers(tmp_path))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="truncated"):
        reader.read("a")


def test_a_disk_that_is_too_small_is_said_before_the_first_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sys.path.append(str(Path(__file__).parents[1] / "evaluation"))
    from tiny_language_models import model_for, tokenizer_for

    from warmstart.checkpoint import Lineage, resolve, save_checkpoint
    from warmstart.checkpoint.stream import stream_checkpoint

    tokenizer = tokenizer_for("llama")
    save_checkpoint(tmp_path / "m", model_for("llama", len(tokenizer)), tokenizer, lineage=Lineage.of("test"))
    source = resolve(tmp_path / "m")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))

    def never(name: str) -> torch.Tensor:
        raise AssertionError(name)

    plan = [Planned("a", "F32", (1000, 1000))]
    with pytest.raises(UserError, match=r"too small: 0\.1 GB are needed and 0\.0 GB are free"):
        stream_checkpoint(
            tmp_path / "out", source, plan, never, config=source.config, lineage=Lineage.of("test")
        )
    assert not (tmp_path / "out").exists()


def test_memory_holds_a_few_tensors(tmp_path: Path) -> None:
    """A quarter of a gigabyte in tensors of 8 MB passes through a process that grows by far less."""
    code = """
import resource, sys
from pathlib import Path
import torch
from warmstart.checkpoint.headers import read_headers
from warmstart.checkpoint.shards import Planned, TensorReader, shards_of, write_shards
folder = Path(sys.argv[1])
plan = [Planned(f"t{i}", "F32", (2 << 20,)) for i in range(32)]
tensor = torch.ones(2 << 20)
(folder / "a").mkdir(); (folder / "b").mkdir()
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_shards(folder / "a", shards_of(plan, "64MB"), lambda _: tensor)
reader = TensorReader(read_headers(folder / "a"))
write_shards(folder / "b", shards_of(plan, "64MB"), lambda name: reader.read(name) + 1)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 96, "MiB"
    assert json.loads((tmp_path / "b" / "model.safetensors.index.json").read_text())["weight_map"]
