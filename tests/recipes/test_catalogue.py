from __future__ import annotations

import json
from pathlib import Path

import pytest

from warmstart.evaluation.results import ComparisonResult
from warmstart.foundation.errors import UserError
from warmstart.recipes.catalogue import systems
from warmstart.recipes.reproduce import results_folders, system_files, system_recipe

RESULTS = Path(__file__).parents[2] / "results"


def test_all_184_systems_are_listed_once() -> None:
    rows = systems()
    assert [row.n for row in rows] == list(range(1, 185))
    assert all(row.name and row.title and row.room for row in rows)


def test_state_follows_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_RESULTS", str(tmp_path))
    built = {row.n for row in systems(state="runs")}
    assert {15, 19, 23} <= built
    assert not systems(state="measured")
    record = {
        "verdict": "partly",
        "scale": "smoke",
        "date": "2026-01-01",
        "seeds": [0, 1],
        "sentence": "s",
        "systems": [19],
    }
    (tmp_path / "a.json").write_text(json.dumps(record))
    assert not systems(state="measured"), "a smoke run measures nothing"
    (tmp_path / "a.json").write_text(json.dumps(record | {"scale": "small"}))
    (row,) = systems(state="measured")
    assert (row.n, row.verdict, row.scale, row.seeds) == (19, "partly", "small", 2)
    (tmp_path / "b.json").write_text(json.dumps(record | {"scale": "full", "verdict": "reproduced"}))
    assert systems(state="measured")[0].verdict == "reproduced"


def test_search_and_filters() -> None:
    assert [row.n for row in systems(search="focus embedding")] == [19]
    assert all(row.room == "shape" for row in systems(room="shape"))
    with pytest.raises(UserError, match="did you mean 'shape'"):
        systems(room="shap")
    with pytest.raises(UserError, match="no state"):
        systems(state="done")


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda p: p.stem)
def test_every_stored_result_is_whole_and_belongs_to_a_recipe(path: Path) -> None:
    assert [folder.resolve() for folder in results_folders()] == [RESULTS.resolve()]
    result = ComparisonResult.model_validate_json(path.read_text())
    by_recipe = {system_recipe(name).name: system_recipe(name) for name in system_files()}
    recipe = by_recipe[result.name]
    assert path.name == f"{result.name}.{result.scale}.json"
    assert recipe.systems == result.systems
    assert [c["text"] for c in recipe.scaled(result.scale).steps[recipe.outcome]["claims"]] == [
        c.text for c in result.claims
    ]
    assert str(Path.home()) not in path.read_text(), "a path of the machine that ran it"
