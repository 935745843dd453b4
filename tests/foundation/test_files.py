from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
from pathlib import Path

import pytest

from warmstart.foundation.errors import UserError
from warmstart.foundation.events import EventLog
from warmstart.foundation.files import atomic_folder, disk_errors, existing, lock, sweep, write_atomic


def test_atomic_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(RuntimeError), atomic_folder(target) as temporary:
        (temporary / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(target) as temporary:
        (temporary / "whole").write_text("x")
        assert not target.exists()
    assert (target / "whole").read_text() == "x"


def test_replacing_keeps_the_old_folder_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_folder(target) as temporary:
        (temporary / "a").write_text("old")
    with pytest.raises(UserError, match="already exists"), atomic_folder(target):
        pass
    with pytest.raises(RuntimeError), atomic_folder(target, replace=True) as temporary:
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    with atomic_folder(target, replace=True) as temporary:
        (temporary / "b").write_text("new")
    assert sorted(p.name for p in target.iterdir()) == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_sweep_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / ".out.tmp-abc").mkdir()
    (tmp_path / ".file.tmp-abc").write_text("half")
    (tmp_path / "kept").write_text("x")
    sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize("by", ["sweep", "the next save"])
def test_a_replacement_killed_between_its_renames_loses_nothing(tmp_path: Path, by: str) -> None:
    old = tmp_path / ".out.old-abc" / "out"
    old.mkdir(parents=True)
    (old / "a").write_text("old")
    (tmp_path / ".out.tmp-abc").mkdir()
    if by == "sweep":
        sweep(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["out"]
    else:
        with pytest.raises(UserError, match="already exists"), atomic_folder(tmp_path / "out"):
            pass
    assert (tmp_path / "out" / "a").read_text() == "old"


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("I/O: No space left on device")]
)
def test_full_disk_is_one_sentence(error: Exception) -> None:
    with pytest.raises(UserError, match="disk is full"), disk_errors("somewhere"):
        raise error


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), disk_errors("somewhere"):
        raise ZeroDivisionError


def _hold(folder: str, started: object, stop: object) -> None:
    with lock(Path(folder)):
        started.set()  # type: ignore[attr-defined]
        stop.wait(30)  # type: ignore[attr-defined]


def test_a_second_process_is_refused_and_a_dead_one_frees_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    started, stop = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), started, stop))
    process.start()
    assert started.wait(60)
    with pytest.raises(UserError, match=rf"pid {process.pid}"), lock(tmp_path):
        pass
    process.kill()
    process.join()
    with lock(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_write_atomic_leaves_no_rest(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b.json", "{}")
    write_atomic(tmp_path / "a" / "b.json", b"[]")
    assert (tmp_path / "a" / "b.json").read_text() == "[]"
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_events_survive_a_torn_line_and_rewind(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append("point", step=1)
    position = log.position()
    log.append("point", step=2)
    with log.path.open("a") as file:
        file.write('{"event": "point", "st')
    assert [event["step"] for event in log.read("point")] == [1, 2]
    log.append("note", text="ä")
    assert [event["event"] for event in log.read()] == ["point", "point", "note"]
    log.rewind(position)
    assert [event["step"] for event in log.read()] == [1]


def test_errors_cross_process_boundaries() -> None:
    error = UserError("what", where="here", fix="mend it")
    assert pickle.loads(pickle.dumps(error)).sentence == error.sentence == "what (in here); mend it."


def test_texts_that_name_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here").write_text("")
    assert existing("here") == Path("here") and existing("~/here") == tmp_path / "here"
    for text in ("", "there", "~/there", "~", "~nobody-of-this-name/here", "x" * 300, "a\0b"):
        assert existing(text) is None
