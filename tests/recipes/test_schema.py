from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from warmstart.foundation.errors import UserError
from warmstart.recipes.demo import DemoSettings, demo_recipe
from warmstart.recipes.reproduce import system_files, system_recipe
from warmstart.recipes.schema import Recipe, load_recipe, recipe_schema, references, substitute
from warmstart.recipes.sources import source_names, source_recipe

EXAMPLES = Path(__file__).parents[2] / "examples"


def recipe(**steps: Any) -> Recipe:
    return Recipe.parse({"name": "r", "steps": {k.replace("_", "-"): v for k, v in steps.items()}})


def test_order_follows_references(toy: list[str]) -> None:
    made = recipe(
        b={"type": "toy", "source": "${a}"}, a={"type": "toy"}, c={"type": "toy", "text": "${b}${a}"}
    )
    assert made.order() == ["a", "b", "c"]
    assert made.order("b") == ["a", "b"]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (
            {"a": {"type": "toy", "source": "${b}"}, "b": {"type": "toy", "source": "${a}"}},
            ["circular: a → b → a"],
        ),
        ({"a": {"type": "toy", "source": "${a}"}}, ["circular: a → a"]),
        ({"first": {"type": "toy", "source": "${frist}"}}, ["'first' refers to", "frist"]),
        ({"a": {"type": "toi"}}, ["unknown operation 'toi'", "'toy'"]),
        ({"a": {"type": "toy", "txt": "x"}}, ["unknown key 'txt'", "'text'", "r: a"]),
        ({"a": {"type": "toy", "fail": "maybe"}}, ["fail", "'maybe'"]),
        ({"a": {"text": "x"}}, ["needs a type"]),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_runs(toy: list[str], steps: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        recipe(**steps).validate_steps()
    for word in words:
        assert word in caught.value.sentence
    assert toy == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", ["line 1", "cannot be read"]),
        ("- a", ["expected a table"]),
        ("name: x\nstps: {}\n", ["unknown key 'stps'", "'steps'"]),
        ("steps: {}\n", ["'name'", "missing"]),
        ("name: !!python/object/apply:os.system ['true']\nsteps: {}\n", ["cannot be read"]),
    ],
)
def test_wrong_yaml(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(tmp_path / "r.yaml")
    for word in words:
        assert word in caught.value.sentence


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_recipe(tmp_path / "none.yaml")


def test_overrides_reach_nested_keys_and_leave_the_recipe_alone(toy: list[str]) -> None:
    base = Recipe.parse(
        {"name": "r", "steps": {"a": {"type": "toy", "text": "x"}}, "scales": {"smoke": {"a.text": "s"}}}
    )
    assert base.scaled("smoke").steps["a"]["text"] == "s"
    assert base.scaled("smoke", ["a.text=2", "a.deep.er=[1, 2]"]).steps["a"] == {
        "type": "toy",
        "text": 2,
        "deep": {"er": [1, 2]},
    }
    assert base.steps["a"]["text"] == "x"
    with pytest.raises(UserError, match="no scale 'small'"):
        base.scaled("small")
    for wrong in ("a.text", "b.text=1", "a=1", "=1"):
        with pytest.raises(UserError):
            base.scaled(None, [wrong])


def test_references_and_substitution_walk_everything() -> None:
    value = {"a": ["${x}", {"b": "pre ${y} post"}], "c": 1}
    assert sorted(references(value)) == ["x", "y"]
    assert substitute(value, {"x": "1", "y": "2"}) == {"a": ["1", {"b": "pre 2 post"}], "c": 1}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_example_is_valid(path: Path) -> None:
    load_recipe(path).validate_steps()


@pytest.mark.parametrize("name", sorted(system_files()))
def test_every_system_file_is_valid_at_every_scale(name: str) -> None:
    found = system_recipe(name)
    assert set(found.scales) == {"smoke", "small", "full"}
    assert found.systems and found.compares and re.match(r"\d{3}-", found.name)
    for scale in found.scales:
        found.scaled(scale).validate_steps()
        assert found.scaled(scale).steps[found.outcome]["claims"]


@pytest.mark.parametrize("name", source_names())
def test_every_named_source_is_valid(name: str) -> None:
    source_recipe(name).validate_steps()


def test_the_demo_takes_the_users_source_and_text() -> None:
    made = demo_recipe(DemoSettings(source="gpt2", corpus="my.txt", max_tokens=7))
    made.validate_steps()
    text = yaml.safe_dump(made.model_dump())
    assert "tiny-en" not in text and "python-stdlib" not in text
    assert made.steps["compare"]["train"]["max_tokens"] == 7


def test_the_json_schema_knows_every_step_type() -> None:
    schema = recipe_schema()
    known = {key for key in schema["$defs"] if key.startswith("step-")}
    assert {"step-tokenizer", "step-transplant", "step-train", "step-compare", "step-initialise"} <= known
    assert schema["$defs"]["step-train"]["properties"]["learning_rate"]["description"]
    assert schema["$defs"]["step-train"]["additionalProperties"] is False
