"""The setting `optimizer`: read early, refused clearly, and no part of what was kept before it came."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import training_tiny as tiny

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import AddedLater, Settings, digest
from warmstart.recipes.runner import Runner
from warmstart.recipes.versions import later_versions
from warmstart.training import TrainSettings
from warmstart.training.optimizer import chosen_optimizer, optimizers
from warmstart.training.optimizers.galore import GaLoreSettings


class LearnSettings(TrainSettings):
    """A step that trains."""

    source: str = "a"
    """Checkpoint."""


class AroundSettings(Settings):
    """A step with training settings inside, as a comparison has them."""

    train: TrainSettings = TrainSettings()
    """Training settings."""


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("galor", "unknown optimizer 'galor'; did you mean 'galore'"),
        ({"name": "appolo"}, "unknown optimizer 'appolo'; did you mean 'apollo'"),
        ({"name": "galore", "rnk": 4}, "unknown key 'rnk'; did you mean 'rank'"),
        ({"name": "fira", "growth_limit": 0.5}, "growth_limit: input should be greater than or equal to 1"),
        ({"name": "fira", "residual": "paper"}, "residual: input should be 'exact' or 'released'"),
        ({"rank": 4}, "'adamw' has no settings of its own, but rank is given; name the optimizer"),
        ({"name": 3}, "unknown optimizer '3'"),
    ],
)
def test_a_wrong_optimizer_is_one_sentence(given: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        TrainSettings.parse({"optimizer": given}, where="recipe.yaml")
    assert "optimizer:" in error.value.sentence and "recipe.yaml" in error.value.sentence


def test_names_and_tables_choose_method_and_options() -> None:
    entry, options = chosen_optimizer(TrainSettings(optimizer="galore").optimizer)
    assert (entry.name, options) == ("galore", GaLoreSettings())
    entry, options = chosen_optimizer({"name": "galore", "rank": 7})
    assert (entry.name, options) == ("galore", GaLoreSettings(rank=7))
    assert chosen_optimizer({})[0].name == chosen_optimizer(TrainSettings().optimizer)[0].name == "adamw"


def test_settings_are_read_without_loading_torch() -> None:
    code = (
        "import sys; from warmstart.training.settings import TrainSettings as T\n"
        "T(optimizer='fira'); T(optimizer={'name': 'apollo-mini', 'rank': 2})\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=tiny.environment())


def key(runner: Runner, settings: Settings) -> str:
    return digest({"operation": "learn", "settings": runner.fingerprint(settings), "version": 1})


def test_keys_of_steps_are_those_from_before_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both were computed by the code that had no setting `optimizer`."""
    monkeypatch.chdir(tmp_path)  # no name in the settings is a file here
    runner = Runner(tmp_path)
    many: dict[str, Any] = {
        "max_steps": 10,
        "learning_rate": 1e-3,
        "objective": {"name": "masked", "mlm_probability": 0.3},
        "trainable": {"embeddings": 0.1, "all": 1},
    }
    before = {"af13b50ed2f5cba1": {}, "6367ff96b41747e3": many}
    for old, given in before.items():
        assert key(runner, LearnSettings(**given)) == old
        assert key(runner, LearnSettings(**given, optimizer="adamw")) == old
        changed = [key(runner, LearnSettings(**given, optimizer=o)) for o in ("galore", {"name": "fira"})]
        assert len({old, *changed}) == 3
    inside = runner.fingerprint(AroundSettings())["train"]
    assert "optimizer" not in inside and "objective" in inside
    assert runner.fingerprint(AroundSettings(train=TrainSettings(optimizer="fira"))) != {"train": inside}


def test_only_marked_fields_at_their_default_are_left_out(tmp_path: Path) -> None:
    class Younger(Settings):
        """Two fields came later."""

        old: int = 1
        """From the start."""
        new: Annotated[int, AddedLater()] = 2
        """Later."""
        table: Annotated[dict[str, int], AddedLater()] = {}
        """Later, too."""

    assert Younger.added_later() == {"new": 2, "table": {}}
    fingerprint = Runner(tmp_path).fingerprint
    assert fingerprint(Younger()) == fingerprint(Younger(new=2)) == {"old": 1}
    assert fingerprint(Younger(new=3, table={"a": 1})) == {"old": 1, "new": 3, "table": {"a": 1}}


def test_a_run_from_before_the_setting_continues_and_only_with_adamw(tmp_path: Path) -> None:
    whole = tiny.run(tmp_path / "whole")
    first = tiny.run(tmp_path / "a")
    (tmp_path / "a/checkpoints/step-12").rename(tmp_path / "end")
    state = tmp_path / "a/checkpoints/step-8/state.json"
    record = json.loads(state.read_text())
    assert record["identity"].pop("optimizer") == "adamw"
    state.write_text(json.dumps(record))
    with pytest.raises(UserError, match="optimizer was 'adamw' and is now 'galore'"):
        tiny.run(tmp_path / "a", optimizer="galore")
    again = tiny.run(tmp_path / "a")
    assert again.steps == first.steps and tiny.same_bits(again.checkpoint, whole.checkpoint)


def test_a_run_with_another_optimizer_is_another_run(tmp_path: Path) -> None:
    tiny.run(tmp_path, optimizer="apollo", max_steps=2)
    with pytest.raises(UserError, match="optimizer was 'apollo' and is now 'adamw'"):
        tiny.run(tmp_path, max_steps=2)


def test_a_new_version_of_an_optimizer_reruns_the_steps_that_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = {name: dataclasses.replace(optimizers.get(name), version=3) for name in ("adamw", "fira")}
    assert later_versions(LearnSettings(optimizer="fira")) == {}
    monkeypatch.setattr(optimizers, "_entries", {**optimizers._entries, **newer})
    assert later_versions(LearnSettings()) == {"optimizer adamw": 3}
    assert later_versions(LearnSettings(optimizer={})) == {"optimizer adamw": 3}
    assert later_versions(LearnSettings(optimizer="fira")) == {"optimizer fira": 3}
    assert later_versions(AroundSettings(train=TrainSettings(optimizer={"name": "fira"}))) == {
        "optimizer fira": 3
    }
    assert later_versions(LearnSettings(optimizer="galore")) == {}
