"""Methods take part in a step's key by their version, and only from version 2 on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from warmstart.foundation.registry import Registry
from warmstart.foundation.settings import Settings, digest
from warmstart.objectives import objectives
from warmstart.objectives._base import USUAL
from warmstart.recipes.operations import operations
from warmstart.recipes.runner import Runner
from warmstart.recipes.versions import later_versions
from warmstart.training.settings import TrainSettings
from warmstart.vocabulary.rows._base import initialisers
from warmstart.vocabulary.settings import TransplantSettings

RUNS: list[str] = []


class SurgerySettings(TransplantSettings):
    """A step that names an initialiser, as a real one does."""


class LearnSettings(TrainSettings):
    """A step that names an objective."""

    source: str = "a"
    """Checkpoint."""


class BothSettings(Settings):
    """A step with others inside."""

    arms: dict[str, dict[str, Any]] = {}
    """Name to steps."""
    initialisers: list[str] = []
    """Names of methods."""


def _run(settings: Settings, folder: Path, runner: Runner) -> None:
    """Leave an empty artifact."""
    RUNS.append(folder.name)
    (folder / "output").mkdir()


Bump = Callable[[Registry[Any], str, int], None]


@pytest.fixture
def bump(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bump]:
    """Steps that do nothing, two methods, and a way to give a method another version."""
    for registry in (operations, initialisers, objectives):
        monkeypatch.setattr(registry, "_entries", {entry.name: entry for entry in registry})
    for name, settings in (("surgery", SurgerySettings), ("learn", LearnSettings), ("both", BothSettings)):
        operations.register(name, settings=settings)(_run)
    initialisers.register("mine")(lambda context, settings: None)
    objectives.register("mine")(objectives.get("causal").target)
    RUNS.clear()

    def change(registry: Registry[Any], name: str, version: int) -> None:
        newer = dataclasses.replace(registry.get(name), version=version)
        monkeypatch.setitem(registry._entries, name, newer)

    yield change


def surgery(initialiser: Any) -> dict[str, Any]:
    return {"source": "a", "tokenizer": "b", "initialiser": initialiser}


STEPS: list[tuple[str, dict[str, Any]]] = [
    ("surgery", surgery("mine")),
    ("surgery", surgery({"name": "mine"})),
    ("both", {"arms": {"x": {"start": {"type": "surgery", **surgery("mine")}}}}),
    ("both", {"initialisers": ["random", "mine"]}),
    ("learn", {"objective": "mine"}),
    ("learn", {"objective": {"name": "mine"}}),
    ("both", {"arms": {"x": {"step": "learn", "train": {"objective": "mine"}}}}),
    ("surgery", surgery("random")),
    ("learn", {"objective": "masked"}),
    ("both", {"arms": {"mine": {"start": {"type": "surgery", **surgery("random")}}}}),
]
USES_INITIALISER, USES_OBJECTIVE = set(range(4)), set(range(4, 7))


@pytest.mark.parametrize(
    ("registry", "using"), [(initialisers, USES_INITIALISER), (objectives, USES_OBJECTIVE)]
)
def test_a_new_version_reruns_the_steps_that_use_the_method_and_no_other(
    bump: Bump, tmp_path: Path, registry: Registry[Any], using: set[int]
) -> None:
    first = [Runner(tmp_path).step(kind, settings) for kind, settings in STEPS]
    count = len(RUNS)
    bump(registry, "mine", 2)
    second = [Runner(tmp_path).step(kind, settings) for kind, settings in STEPS]
    assert {i for i, (a, b) in enumerate(zip(first, second)) if a != b} == using
    bump(registry, "mine", 3)
    third = [Runner(tmp_path).step(kind, settings) for kind, settings in STEPS]
    assert {i for i, (a, b) in enumerate(zip(second, third)) if a != b} == using
    assert len(RUNS) - count == 2 * len({first[i] for i in using})
    bump(registry, "mine", 1)
    assert [Runner(tmp_path).step(kind, settings) for kind, settings in STEPS] == first


def test_keys_of_methods_at_version_one_are_those_of_before(bump: Bump, tmp_path: Path) -> None:
    for kind, settings in STEPS:
        runner = Runner(tmp_path)
        parsed = operations.get(kind).settings.parse(settings)
        old = digest({"operation": kind, "version": 1, "settings": runner.fingerprint(parsed)})
        assert runner.step(kind, settings).parent.name == f"{kind}-{old}"


def test_methods_that_a_step_takes_unasked_count(bump: Bump) -> None:
    bump(initialisers, "mean-of-pieces", 4)
    bump(objectives, "token-distillation", 5)
    start = {"type": "transplant", "source": "a", "tokenizer": "b"}
    assert later_versions(BothSettings(arms={"x": {"start": start}})) == {"initialiser mean-of-pieces": 4}
    assert later_versions(BothSettings(arms={"x": {"step": "train-rows"}})) == {
        "objective token-distillation": 5
    }
    assert later_versions(SurgerySettings(source="a", tokenizer="b")) == {"initialiser mean-of-pieces": 4}
    assert later_versions(LearnSettings()) == {}


def test_ways_to_reshape_and_to_merge_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from warmstart.shape.depth import depths
    from warmstart.shape.grow import GrowSettings
    from warmstart.shape.importance import importances
    from warmstart.shape.merge import merges
    from warmstart.shape.merging import MergeSettings
    from warmstart.shape.shrink import ShrinkSettings
    from warmstart.shape.width import widths

    chosen: list[tuple[Registry[Any], str]] = [
        (widths, "exact"),
        (depths, "middle"),
        (importances, "activation"),
        (merges, "task-arithmetic"),
    ]
    for registry, name in chosen:
        newer = dataclasses.replace(registry.get(name), version=3)
        monkeypatch.setitem(registry._entries, name, newer)
    to = {"hidden_size": 8}
    assert later_versions(GrowSettings(to=to)) == {"width exact": 3}
    assert later_versions(GrowSettings(to=to, width={"name": "fpi"})) == {}
    assert later_versions(ShrinkSettings(to=to)) == {"depth middle": 3, "importance activation": 3}
    merged = MergeSettings.parse({"models": ["a", "b"], "merge_method": "task_arithmetic"})
    assert later_versions(merged) == {"merge task-arithmetic": 3}


def test_auto_is_what_the_source_is_trained_with(bump: Bump, tmp_path: Path) -> None:
    for number, name in enumerate(USUAL.values(), 2):
        bump(objectives, name, number)
    everything = {f"objective {name}": number for number, name in enumerate(USUAL.values(), 2)}
    assert later_versions(LearnSettings(source="nowhere")) == everything
    (tmp_path / "config.json").write_text("no table")
    assert later_versions(LearnSettings(source=str(tmp_path))) == everything
    for family, name in (("llama", "causal"), ("bert", "masked"), ("t5", "span")):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
        key = f"objective {name}"
        for given in ("auto", {}):
            found = later_versions(LearnSettings(source=str(tmp_path), objective=given))
            assert found == {key: everything[key]}
