"""Commands whose output may be as large as the disk allows make it beside its place, and nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from warmstart.checkpoint import Lineage, resolve, save_checkpoint, shards
from warmstart.cli.commands.grow import command as grow
from warmstart.cli.commands.merge import command as merge
from warmstart.foundation.files import cache_home

sys.path.append(str(Path(__file__).parents[1] / "evaluation"))
from tiny_language_models import model_for, tokenizer_for


@pytest.fixture
def source(tmp_path: Path) -> str:
    tokenizer = tokenizer_for("llama")
    model = model_for("llama", len(tokenizer))
    save_checkpoint(tmp_path / "source", model, tokenizer, lineage=Lineage.of("test"))
    return str(tmp_path / "source")


def test_the_output_is_moved_into_place_and_nothing_else_is_left(source: str, tmp_path: Path) -> None:
    steps = cache_home() / "steps"
    before = set(steps.iterdir()) if steps.is_dir() else set()
    done = CliRunner().invoke(grow, [source, "--to", "{num_hidden_layers: 4}", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert resolve(tmp_path / "out").config["num_hidden_layers"] == 4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source"]
    assert (set(steps.iterdir()) if steps.is_dir() else set()) == before


def test_a_refused_command_leaves_nothing_and_what_was_there(source: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    for more in ([], ["--replace"]):
        words = ["--models", f"{source},{tmp_path / 'nothing'}", "-o", str(tmp_path / "out"), *more]
        assert CliRunner().invoke(merge, words).exit_code != 0
    assert (tmp_path / "out" / "mine").read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source"]


def test_an_interrupted_command_goes_on(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--models", f"{source},{source}", "-o", str(tmp_path / "out"), "--max-shard-size", "20KB"]
    written: list[str] = []
    whole = shards._ShardFile.add

    def counted(self: object, tensor: shards.Planned, pieces: object) -> None:
        written.append(tensor.name)
        if len(written) == 9:
            raise KeyboardInterrupt
        whole(self, tensor, pieces)  # type: ignore[arg-type]

    monkeypatch.setattr(shards._ShardFile, "add", counted)
    assert CliRunner().invoke(merge, words).exit_code != 0
    assert not (tmp_path / "out").exists() and (tmp_path / ".out.steps").is_dir()
    first, written[:] = list(written), ["x"] * 9
    assert CliRunner().invoke(merge, words).exit_code == 0
    again = written[9:]
    assert len(again) < len(resolve(source).tensors) and set(again) | set(first) == set(
        resolve(source).tensors
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source"]
    state = resolve(tmp_path / "out").load_model().state_dict()
    for name, tensor in resolve(source).load_model().state_dict().items():
        torch.testing.assert_close(state[name], tensor)
