"""Stopping, resuming, damaged checkpoints, full disks, locks."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import training_tiny as tiny

from warmstart.foundation.errors import UserError
from warmstart.foundation.files import lock
from warmstart.training import Interrupted, state, train
from warmstart.training.engine import Engine

DROPOUT = {"llama": lambda: tiny.llama(dropout=0.2), "bert": tiny.bert, "t5": tiny.t5}


pytestmark = pytest.mark.usefixtures("one_thread")


def stop_in_step(monkeypatch: pytest.MonkeyPatch, number: int, *signals: int) -> None:
    """Send `signals` in the middle of optimizer step `number` (from 1), once."""
    original, seen = Engine._normalise, [0]

    def normalise(self: Engine, targets: torch.Tensor) -> torch.Tensor:
        seen[0] += 1
        if seen[0] == number:
            for one in signals:
                os.kill(os.getpid(), one)
        return original(self, targets)

    monkeypatch.setattr(Engine, "_normalise", normalise)


@pytest.mark.parametrize("kind", list(tiny.MODELS))
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, signum: int
) -> None:
    """Causal, masked and seq2seq, with dropout and random masks; stopped between two saves."""
    handler = signal.getsignal(signal.SIGINT)
    whole = tiny.run(tmp_path / "whole", kind=kind, model=DROPOUT[kind]())
    assert len(whole.curve.points) == 4 and whole.steps == 12
    assert whole.curve.final != whole.curve.points[0].bpb
    stop_in_step(monkeypatch, 6, signum)
    model = DROPOUT[kind]()
    with pytest.raises(Interrupted) as stopped:
        tiny.run(tmp_path / "part", kind=kind, model=model)
    assert stopped.value.exit_code == 130
    assert "step-6" in stopped.value.sentence and "same command continues" in stopped.value.sentence
    assert stopped.value.result.interrupted and stopped.value.result.steps == 6
    rest = tiny.run(tmp_path / "part", kind=kind, model=DROPOUT[kind]())
    assert tiny.curve(rest) == tiny.curve(whole)
    assert tiny.curve(tmp_path / "part") == tiny.curve(tmp_path / "whole")
    assert tiny.same_bits(rest.checkpoint, whole.checkpoint)
    assert signal.getsignal(signal.SIGINT) is handler


def test_ctrl_c_while_measuring_stops_at_once(tmp_path: Path) -> None:
    whole = tiny.run(tmp_path / "whole")

    def slow(model: Any) -> float:
        if len(list((tmp_path / "part/checkpoints").glob("step-*"))) == 1:  # measured after step 6
            os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("the measurement went on")
        return tiny.evaluate(model)

    with pytest.raises(Interrupted):
        train(tiny.llama(), None, tiny.ArrayBlocks(), tiny.settings(), tmp_path / "part", evaluate=slow)
    assert (tmp_path / "part/checkpoints/step-6").is_dir()
    rest = tiny.run(tmp_path / "part")
    assert tiny.curve(tmp_path / "part") == tiny.curve(tmp_path / "whole")
    assert tiny.same_bits(rest.checkpoint, whole.checkpoint)


def test_second_ctrl_c_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hit in the middle of an update, so the state in memory is not saved."""
    whole = tiny.run(tmp_path / "whole")
    stop_in_step(monkeypatch, 7, signal.SIGINT, signal.SIGINT)
    with pytest.raises(Interrupted, match="step-4"):
        tiny.run(tmp_path / "part")
    assert [p.name for p in (tmp_path / "part/checkpoints").iterdir()] == ["step-4"]
    assert tiny.same_bits(tiny.run(tmp_path / "part").checkpoint, whole.checkpoint)


def test_ctrl_c_before_any_checkpoint_says_so(tmp_path: Path) -> None:
    def stop(model: Any) -> float:
        os.kill(os.getpid(), signal.SIGINT)
        return 0.0

    with pytest.raises(Interrupted, match="no checkpoint was written yet"):
        train(tiny.llama(), None, tiny.ArrayBlocks(), tiny.settings(), tmp_path / "a", evaluate=stop)


def test_ctrl_c_during_the_last_save_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever follows the training must learn of it too."""
    original = state.save_file

    def save(tensors: Any, file: Path, **options: Any) -> None:
        original(tensors, file, **options)
        if "step-12" in str(file) and file.name.startswith("optimizer"):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(state, "save_file", save)
    with pytest.raises(Interrupted, match="step-12"):
        tiny.run(tmp_path / "a")
    assert state.newest(tmp_path / "a/checkpoints") is not None


@pytest.mark.parametrize("harm", ["truncated", "flipped", "no state", "empty state"])
def test_damaged_checkpoint_is_ignored(tmp_path: Path, harm: str) -> None:
    whole = tiny.run(tmp_path / "a", save_steps=5)
    kept = tmp_path / "kept"
    whole.checkpoint.rename(kept)
    tiny.run(tmp_path / "a", save_steps=5)
    newest = tmp_path / "a/checkpoints/step-12"
    file = newest / "optimizer.safetensors"
    data = bytearray(file.read_bytes())
    if harm == "truncated":
        file.write_bytes(data[:-100])
    elif harm == "flipped":
        data[-50] ^= 1
        file.write_bytes(data)
    elif harm == "no state":
        (newest / "state.json").unlink()
    else:
        (newest / "state.json").write_text("")
    again = tiny.run(tmp_path / "a", save_steps=5)
    assert again.checkpoint == newest
    assert tiny.same_bits(newest, kept)
    assert state.newest(tmp_path / "a/checkpoints")[0] == newest


def test_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first = tiny.run(tmp_path / "a")
    events = (tmp_path / "a/events.jsonl").read_bytes()
    model = tiny.llama()
    second = tiny.run(tmp_path / "a", model=model)
    assert second.curve == first.curve and second.checkpoint == first.checkpoint
    assert (tmp_path / "a/events.jsonl").read_bytes() == events
    trained = tiny.weights(first.checkpoint)
    assert all(torch.equal(p, trained[name]) for name, p in model.named_parameters())


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    tiny.run(tmp_path / "a", save_steps=2, save_total_limit=3)
    names = {p.name for p in (tmp_path / "a/checkpoints").iterdir()}
    assert names == {"step-8", "step-10", "step-12"}


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    tiny.run(tmp_path / "a")
    with pytest.raises(UserError, match=r"learning_rate was 0\.003 and is now 0\.001"):
        tiny.run(tmp_path / "a", learning_rate=1e-3)
    with pytest.raises(UserError, match="starting model was"):
        tiny.run(tmp_path / "a", model=tiny.llama(seed=1))
    with pytest.raises(UserError, match="already holds a run"):
        tiny.run(tmp_path / "a", resume=False)
    tiny.run(tmp_path / "a", logging_steps=1, save_steps=3)  # these may change


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    with lock(tmp_path / "a"), pytest.raises(UserError, match="another process"):
        tiny.run(tmp_path / "a")


class FullDisk:
    """`save_file` that fails at step 8 after half of its bytes."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __call__(self, tensors: Any, file: Path, **options: Any) -> None:
        self.original(tensors, file, **options)
        if "step-8" in str(file) and file.name.startswith("optimizer"):
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(file))


def test_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny.run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(state, "save_file", FullDisk(state.save_file))
        with pytest.raises(UserError, match=r"disk is full.*step-4 is intact.*same command") as error:
            tiny.run(tmp_path / "part")
    assert error.value.exit_code == 2
    assert [p.name for p in (tmp_path / "part/checkpoints").iterdir()] == ["step-4"]
    rest = tiny.run(tmp_path / "part")
    assert tiny.same_bits(rest.checkpoint, whole.checkpoint)
    assert tiny.curve(tmp_path / "part") == tiny.curve(tmp_path / "whole")


def test_file_limit_of_the_system_reads_as_a_full_disk(tmp_path: Path) -> None:
    """The system itself refuses to write on: errors come from within safetensors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        with pytest.raises(UserError, match=r"disk is full.*nothing was saved before"):
            tiny.run(tmp_path / "a")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "a/checkpoints").iterdir()) == []


def test_ctrl_c_from_a_terminal_exits_with_130(tmp_path: Path) -> None:
    """A real process, a real signal at a random moment; what it leaves can be continued."""
    code = (
        "import sys, training_tiny as t; from pathlib import Path\n"
        "from warmstart.training import Interrupted\n"
        "print('ready', flush=True)\n"
        "try: t.run(Path(sys.argv[1]), max_steps=100_000, save_steps=50)\n"
        "except Interrupted as stop: print(stop, flush=True); sys.exit(stop.exit_code)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a")],
        stdout=subprocess.PIPE,
        text=True,
        env={**tiny.environment(), "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    while not list(tmp_path.glob("a/checkpoints/step-*")):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "training was stopped" in said and "continues from there" in said
    found = state.newest(tmp_path / "a/checkpoints")
    assert found is not None and json.loads((found[0] / "state.json").read_text())["step"] == found[1].step
