from __future__ import annotations

import json
from pathlib import Path

import pytest

from warmstart.foundation.errors import UserError
from warmstart.foundation.events import EventLog
from warmstart.foundation.files import lock
from warmstart.recipes.runner import Runner, run_folder, run_recipe
from warmstart.recipes.schema import Recipe


def chain(**second: object) -> Recipe:
    steps = {"a": {"type": "toy", "text": "A"}, "b": {"type": "toy", "source": "${a}", "text": "B"} | second}
    return Recipe.parse({"name": "chain", "steps": steps})


def test_steps_run_once_and_only_changed_ones_again(toy: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    done = run_recipe(chain(), tmp_path / "one", cache=cache)
    assert (done["b"] / "text").read_text() == "AB" and toy == ["A", "B"]
    run_recipe(chain(), tmp_path / "two", cache=cache)
    assert toy == ["A", "B"]
    run_recipe(chain(text="C"), tmp_path / "three", cache=cache)
    assert toy == ["A", "B", "C"]
    assert (tmp_path / "three" / "checkpoints" / "b" / "text").read_text() == "AC"
    cached = [event["cached"] for event in EventLog(tmp_path / "three" / "events.jsonl").read("step")]
    assert cached == [True, False]


def test_a_changed_input_file_reruns_what_reads_it(toy: list[str], tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "text").write_text("1")
    settings = {"source": str(given), "text": "x"}
    first = Runner(tmp_path / "cache").step("toy", settings)
    assert Runner(tmp_path / "cache").step("toy", settings) == first
    (given / "text").write_text("2")
    second = Runner(tmp_path / "cache").step("toy", settings)
    assert second != first and (second / "text").read_text() == "2x"


def test_a_new_code_version_reruns(toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from warmstart.recipes.operations import operations

    first = Runner(tmp_path).step("toy", {})
    newer = dataclasses.replace(operations.get("toy"), version=2)
    monkeypatch.setitem(operations._entries, "toy", newer)
    assert Runner(tmp_path).step("toy", {}) != first


def test_a_failed_step_is_taken_up_in_its_folder(toy: list[str], tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="told to fail"):
            runner.step("toy", {"fail": True})
    (folder,) = tmp_path.glob("toy-*")
    assert (folder / "progress").read_text() == "++"
    assert not (folder / "step.json").exists()


def test_two_runs_on_one_folder_are_refused(toy: list[str], tmp_path: Path) -> None:
    with lock(tmp_path / "run"), pytest.raises(UserError, match="another process"):
        run_recipe(chain(), tmp_path / "run", cache=tmp_path / "cache")
    assert toy == []


def test_the_run_folder_is_named_by_what_runs(toy: list[str], tmp_path: Path) -> None:
    assert run_folder(chain(), tmp_path) == run_folder(chain(), tmp_path)
    assert run_folder(chain(), tmp_path) != run_folder(chain(text="C"), tmp_path)
    run_recipe(chain(), tmp_path / "run", only="a", cache=tmp_path / "cache")
    assert toy == ["A"] and (tmp_path / "run" / "recipe.yaml").is_file()
    with pytest.raises(UserError, match="no step 'z'"):
        run_recipe(chain(), tmp_path / "run", only="z", cache=tmp_path / "cache")


def test_the_record_says_what_made_the_artifact(toy: list[str], tmp_path: Path) -> None:
    output = Runner(tmp_path).step("toy", {"text": "hello"})
    record = json.loads((output.parent / "step.json").read_text())
    assert record["type"] == "toy" and record["settings"]["text"] == "hello"
    assert output.parent.name == f"toy-{record['key']}"


def test_a_relative_folder_is_known_by_its_content(
    toy: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "text").write_text("1")
    first = Runner(tmp_path / "cache").step("toy", {"source": "given"})
    (tmp_path / "given" / "text").write_text("2")
    assert Runner(tmp_path / "cache").step("toy", {"source": "given"}) != first
