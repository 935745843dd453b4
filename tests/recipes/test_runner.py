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


def test_what_a_killed_step_is_taken_up_from_goes_when_it_is_done(toy: list[str], tmp_path: Path) -> None:
    """Weights and moments of training would fill the disk: 100 MB for each run of a small model."""
    runner = Runner(tmp_path)
    folder = runner.step("toy", {}).parent
    (folder / "step.json").unlink()  # as if it had been killed
    (folder / "output").rename(tmp_path / "gone")
    (folder / "run" / "checkpoints" / "step-7").mkdir(parents=True)
    (folder / "run" / "events.jsonl").write_text("{}")
    runner.step("toy", {})
    assert sorted(p.name for p in (folder / "run").iterdir()) == ["events.jsonl"]


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


@pytest.mark.parametrize("before", ["nothing", "parent", "neighbour", "folder"])
def test_a_run_that_is_refused_before_a_step_is_done_leaves_nothing(
    toy: list[str], tmp_path: Path, before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("runs") / "inner" / "run"
    there = {"parent": folder.parent, "neighbour": folder.parent / "other", "folder": folder}.get(before)
    if there is not None:
        there.mkdir(parents=True)
    found = set(tmp_path.rglob("*"))
    steps = {"a": {"type": "toy", "refuse": True}, "b": {"type": "toy", "source": "${a}"}}
    with pytest.raises(UserError, match="refused"):
        run_recipe(Recipe.parse({"name": "no", "steps": steps}), folder, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir()), "the step's folder stayed"
    left = {path for path in tmp_path.rglob("*") if tmp_path / "cache" not in (path, *path.parents)}
    if before == "folder":
        assert left > found and (folder / "recipe.yaml").is_file()
    else:
        assert left == found


def test_a_run_that_is_refused_later_keeps_what_is_done(toy: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="refused"):
        run_recipe(chain(refuse=True), tmp_path / "runs" / "run", cache=tmp_path / "cache")
    assert (tmp_path / "runs" / "run" / "checkpoints" / "a" / "text").read_text() == "A"
    with pytest.raises(RuntimeError, match="told to fail"):
        run_recipe(
            Recipe.parse({"name": "x", "steps": {"a": {"type": "toy", "fail": True}}}),
            tmp_path / "runs" / "other",
            cache=tmp_path / "cache",
        )
    assert (tmp_path / "runs" / "other" / "recipe.yaml").is_file()  # a defect of ours may be looked at


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


def test_inputs_of_an_initialiser_are_known_by_their_content(toy: list[str], tmp_path: Path) -> None:
    from warmstart.vocabulary.settings import TransplantSettings

    runner = Runner(tmp_path / "cache")
    (tmp_path / "helper").mkdir()
    (tmp_path / "helper" / "text").write_text("1")
    (tmp_path / "v.npz").write_text("1")
    found = []
    for content in ("1", "2"):
        (tmp_path / "helper" / "text").write_text(content)
        (tmp_path / "v.npz").write_text(content)
        for table in (
            {"name": "clp", "helper": str(tmp_path / "helper")},
            {"name": "focus", "vectors": str(tmp_path / "v.npz")},
            {"name": "zett", "hypernetwork": str(tmp_path / "helper")},
        ):
            settings = TransplantSettings.parse({"source": "a", "tokenizer": "b", "initialiser": table})
            found.append(json.dumps(Runner(tmp_path / "cache").fingerprint(settings)))
            assert str(tmp_path) not in found[-1]
    assert len(set(found)) == 6
    artifact = runner.step("toy", {})  # the artifact of a step by the name of its folder
    settings = TransplantSettings.parse(
        {"source": "a", "tokenizer": "b", "initialiser": {"name": "clp", "helper": str(artifact)}}
    )
    shown = runner.fingerprint(settings)["initialiser"]["helper"]
    assert shown == str(artifact.relative_to(tmp_path / "cache"))


def test_named_sources_stand_for_every_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("warmstart.recipes.sources.build_source", lambda name, runner: Path(f"/built/{name}"))
    given = {
        "teacher": "tiny-en",
        "other": "captions-en",
        "initialiser": {"name": "clp", "helper": "tiny-en"},
        "title": "tiny-en",
    }
    found = Runner(tmp_path).with_sources(given)
    assert found["teacher"] == found["initialiser"]["helper"] == "/built/tiny-en"
    assert found["other"] == "/built/captions-en" and found["title"] == "tiny-en"


def test_texts_that_are_no_paths_stay_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = Runner(tmp_path / "cache")
    long = "x" * 300  # too long for the name of a file
    assert runner.fingerprint([long, "/", ".", "..", "~"]) == [long, "/", ".", "..", "~"]
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "given").write_text("1")
    assert runner.fingerprint("~/given") == runner.fingerprint("given") != "given"
    assert runner.fingerprint("~") == "~"


def test_named_labelled_texts_are_known_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from warmstart.corpus import labelled

    monkeypatch.setattr(labelled, "labelled_fingerprint", lambda name: f"content of {name}")
    runner = Runner(tmp_path)
    found = runner.fingerprint({"labelled": "languages", "title": "languages"})
    assert found == {"labelled": {"labelled": "content of languages"}, "title": "languages"}
    assert runner.fingerprint({"transfer": "a file of mine"}) == {"transfer": "a file of mine"}
