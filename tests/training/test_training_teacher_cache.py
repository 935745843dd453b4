"""What a teacher said, on disk: equal to the living teacher, found by content, whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_taught as taught
import training_tiny as tiny

from warmstart.foundation.errors import UserError
from warmstart.objectives._voice import Voice
from warmstart.training.identity import weights_hash
from warmstart.training.teacher_cache import Entry, TeacherCache, joined, row_keys

K = 6


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.set_num_threads(1)
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def forward_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a teacher reads a batch."""
    seen: list[int] = []
    original = Voice._read

    def read(self: Voice, inputs: Any, where: torch.Tensor) -> Any:
        seen.append(len(inputs["input_ids"]))
        return original(self, inputs, where)

    monkeypatch.setattr(Voice, "_read", read)
    return seen


def test_float32_is_the_living_teacher_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4 steps of 10 blocks are one pass over all 40: written, then read by a second run."""
    passes = forward_passes(monkeypatch)
    table = {"top_k": K, "divergence": "jensen-shannon"}
    few = {"max_steps": 4, "per_device_train_batch_size": 10, "eval_points": [], "save_steps": None}
    live = taught.run(tmp_path / "live", table=table, **few)
    assert len(passes) == 4
    table["cache"] = "float32"
    for name in ("writes", "reads"):
        passes.clear()
        found = taught.run(tmp_path / name, table=table, **few)
        assert len(passes) == (4 if name == "writes" else 0)
        assert tiny.same_bits(found.checkpoint, live.checkpoint)
        assert [p.flops for p in found.curve.points] == [p.flops for p in live.curve.points]
    taught.run(
        tmp_path / "longer", table=table, **{**few, "max_steps": 5}, seed=3
    )  # another order, more than a pass
    assert not passes


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_close(tmp_path: Path, precision: str) -> None:
    few = {"max_steps": 3, "eval_points": [], "save_steps": None}
    live = taught.run(tmp_path / "live", table={"top_k": K}, **few)
    table = {"top_k": K, "cache": precision}
    one, two = (taught.run(tmp_path / name, table=table, **few) for name in "ab")
    assert tiny.same_bits(
        one.checkpoint, two.checkpoint
    )  # also where it is written, the rounded values count
    assert not tiny.same_bits(one.checkpoint, live.checkpoint)
    assert one.curve.final == pytest.approx(live.curve.final, rel=1e-4)


def test_filled_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = forward_passes(monkeypatch)
    model = tiny.llama()
    objective = taught.taught(learner=model, top_k=K, cache="float32")
    assert objective.fill(model, tiny.ArrayBlocks(), rows=7) == 40
    assert passes == [7] * 5 + [5]
    assert objective.fill(model, tiny.ArrayBlocks()) == 0
    passes.clear()
    found = taught.run(tmp_path / "run", table={"top_k": K, "cache": "float32"})
    assert not passes
    live = taught.run(tmp_path / "live", table={"top_k": K})
    assert found.curve.final == pytest.approx(live.curve.final, abs=1e-6)
    with pytest.raises(UserError, match="masked anew"):
        taught.taught("bert", top_k=K, cache="float32").fill(tiny.bert(), tiny.ArrayBlocks())
    with pytest.raises(UserError, match="set cache and top_k"):
        taught.taught(top_k=K).fill(model, tiny.ArrayBlocks())


def test_teachers_ks_and_temperatures_do_not_mix(own_cache: Path) -> None:
    model, other = tiny.llama(), taught.teacher()
    with torch.no_grad():
        other.lm_head.weight[17, 5] += 1e-3  # a sample of the weights would miss it
    assert weights_hash(other) != weights_hash(taught.teacher()) == weights_hash(taught.teacher())
    blocks = tiny.ArrayBlocks(4)
    tables: list[dict[str, Any]] = [{}, {"top_k": K + 1}, {"teacher_temperature": 2.0}, {"cache": "float16"}]
    for count, table in enumerate([*tables, {"alpha": 0.9}], 1):
        objective = taught.taught(learner=model, **{"top_k": K, "cache": "float32", **table})
        assert objective.fill(model, blocks) == (4 if count <= len(tables) else 0)
        assert len(list((own_cache / "teachers").iterdir())) == min(count, len(tables))
    assert taught.taught(learner=model, who=other, top_k=K, cache="float32").fill(model, blocks) == 4


def test_keys_are_those_of_content() -> None:
    """Equal rows have equal keys wherever they stand; another token or another place asked for has not."""
    ids = torch.tensor([[1, 2, 3], [4, 5, 6], [1, 2, 3], [1, 2, 3]])
    labels = ids.clone()
    labels[3, 1] = -100
    one, two, three, four = row_keys({"input_ids": ids, "labels": labels})
    assert one == three and len({one, two, four}) == 3
    assert row_keys({"labels": labels[2:3], "input_ids": ids[2:3]}) == [one]
    assert row_keys({"input_ids": ids[:1, :2], "labels": labels[:1, :2]}) != [one]


def entry(places: int, seed: int, vocab: int = 100) -> Entry:
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocab, (places, K), generator=draw)
    return Entry(ids, -20 * torch.rand(places, K, generator=draw), -20 * torch.rand(places, generator=draw))


@pytest.mark.parametrize("vocab", [100, 2**16, 2**16 + 1])
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_what_is_written_is_read(tmp_path: Path, vocab: int, precision: Any) -> None:
    entries = {bytes([i] * 16): entry(i, i, vocab) for i in range(7)}  # one block without places
    cache = TeacherCache(tmp_path, precision=precision, vocab=vocab)
    for key, one in entries.items():
        cache.put(key, one)
    fresh = {key: cache[key] for key in entries}
    cache.flush()
    again = TeacherCache(tmp_path, precision=precision, vocab=vocab)
    assert len(again) == len(cache) == 7 and bytes(15) + b"x" not in again
    for key, one in entries.items():
        for found in (fresh[key], cache[key], again[key]):
            assert torch.equal(found.ids, one.ids)
            for name in ("log_p", "tail"):
                wanted = getattr(one, name).to(getattr(torch, precision)).float()
                assert torch.equal(getattr(found, name), wanted)
    whole = joined([again[key] for key in entries], "cpu")
    assert torch.equal(whole.ids, torch.cat([one.ids for one in entries.values()]))
    size = {"float32": 4, "float16": 2, "bfloat16": 2}[precision]
    payload = sum(
        np.load(next(tmp_path.glob("segment-*")) / f"{name}.npy").nbytes for name in ("ids", "log_p", "tail")
    )
    assert payload == sum(range(7)) * (K * (size + (2 if vocab <= 2**16 else 4)) + size)


def test_segments_are_shared_and_whole(tmp_path: Path) -> None:
    """Two writers at once, the same entries twice, a full buffer, and a torn segment."""
    one, two = (TeacherCache(tmp_path, precision="float32", vocab=100) for _ in range(2))
    for cache in (one, two):
        cache.put(b"a" * 16, entry(3, 0))
        cache.flush()
        cache.flush()
    assert len(list(tmp_path.glob("segment-*"))) == 1
    two.put(b"b" * 16, entry(4, 1))
    two.put(b"a" * 16, entry(3, 9))  # known already
    two.flush()
    both = TeacherCache(tmp_path, precision="float32", vocab=100, segment_bytes=1)
    assert len(both) == 2 and torch.equal(both[b"a" * 16].ids, entry(3, 0).ids)
    both.put(b"c" * 16, entry(1, 2))
    assert len(list(tmp_path.glob("segment-*"))) == 3
    assert not list(tmp_path.glob(".*"))
    torn = next(tmp_path.glob("segment-*")) / "log_p.npy"
    torn.write_bytes(torn.read_bytes()[:-40])
    with pytest.raises(UserError, match="what a teacher said is damaged"):
        TeacherCache(tmp_path, precision="float32", vocab=100)
