"""The whole comparison on tiny real models and generated text."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from warmstart.evaluation.results import ComparisonResult
from warmstart.foundation.errors import UserError
from warmstart.recipes.compare import CompareSettings, check
from warmstart.recipes.runner import Runner, run_recipe
from warmstart.recipes.schema import Recipe

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = ["the", "cat", "dog", "house", "sees", "small", "green", "big", "old", "runs", "over", "river"]


def write_texts(folder: Path, seed: int) -> Path:
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    for number in range(60):
        lines = [" ".join(rng.choice(WORDS) for _ in range(12)) + "." for _ in range(6)]
        (folder / f"{number:02}.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe that trains a source, makes a tokenizer and compares two starts; and its first run."""
    root = tmp_path_factory.mktemp("compare")
    old, new = write_texts(root / "old", 1), write_texts(root / "new", 2)
    corpus = {"path": str(new), "unit": "file", "valid_fraction": 0.15, "test_fraction": 0.15}
    train = {"max_tokens": 1500, "block_size": 32, "per_device_train_batch_size": 4, "eval_points": [0.5]}
    recipe = Recipe.parse(
        {
            "name": "tiny",
            "steps": {
                "old-tokenizer": {"type": "tokenizer", "corpus": str(old), "vocab_size": 300},
                "old-start": {
                    "type": "initialise",
                    "tokenizer": "${old-tokenizer}",
                    "config": {"model_type": "llama", **SIZES},
                },
                "source": {"type": "train", "source": "${old-start}", "corpus": str(old), **train},
                "tokenizer": {"type": "tokenizer", "corpus": corpus, "like": "${source}", "vocab_size": 310},
                "compare": {
                    "type": "compare",
                    "corpus": corpus,
                    "seeds": [0, 1],
                    "learning_rates": [1e-3, 2e-3],
                    "extend": 1,
                    "tune_fraction": 0.5,
                    "eval_max_bytes": 2000,
                    "train": train,
                    "arms": {
                        "scratch": {
                            "start": {"type": "initialise", "like": "${source}", "tokenizer": "${tokenizer}"}
                        },
                        "mean": {
                            "start": {
                                "type": "transplant",
                                "source": "${source}",
                                "tokenizer": "${tokenizer}",
                            },
                            "learning_rates": [1e-3],
                        },
                    },
                    "shown": ["old.bytes"],
                    "measures": {"old": {"type": "evaluate", "corpus": {**corpus, "path": str(old)}}},
                    "claims": [
                        {"text": "warm is better", "better": "mean", "worse": "scratch", "kind": "order"},
                        {
                            "text": "old text is read better with the source's body than from scratch",
                            "kind": "measure",
                            "measure": "old.bits_per_byte",
                            "better": "mean",
                            "worse": "scratch",
                            "at": "start",
                        },
                    ],
                },
            },
        }
    )
    done = run_recipe(recipe, root / "run", cache=root / "cache")
    return {"root": root, "recipe": recipe, "done": done, "corpus": corpus}


def test_arms_are_trained_for_equal_tokens_and_steps(world: dict[str, Any]) -> None:
    result = ComparisonResult.model_validate_json((world["root"] / "run" / "result.json").read_text())
    shapes = {
        (arm.name, curve.seed): [(point.step, point.tokens) for point in curve.points]
        for arm in result.arms
        for curve in arm.curves
    }
    assert set(shapes) == {("scratch", 0), ("scratch", 1), ("mean", 0), ("mean", 1)}
    assert len({tuple(points) for points in shapes.values()}) == 1
    assert shapes["mean", 0][0] == (0, 0) and shapes["mean", 0][-1][1] >= 1500


def test_each_arm_has_its_own_rate_found_by_trying(world: dict[str, Any]) -> None:
    result = ComparisonResult.model_validate_json((world["root"] / "run" / "result.json").read_text())
    scratch, mean = result.arms
    assert mean.learning_rates == {} and mean.learning_rate == 1e-3
    tried = {float(rate): loss for rate, loss in scratch.learning_rates.items()}
    assert len(tried) == 3, "the grid grows once, because its best rate is at an edge"
    assert scratch.learning_rate == min(tried, key=lambda rate: tried[rate])


def test_the_result_is_decided_and_shown(world: dict[str, Any]) -> None:
    run = world["root"] / "run"
    result = ComparisonResult.model_validate_json((run / "result.json").read_text())
    assert result.claims[0].measured and result.verdict in ("reproduced", "partly", "not reproduced")
    assert {saving.axis for saving in result.arms[1].savings} == {"tokens", "flops", "seconds"}
    page = (run / "report.html").read_text()
    assert result.sentence.split("(")[0].strip()[:40] in page and "<svg" in page
    assert (run / "checkpoints" / "compare" / "plots" / "curves.png").stat().st_size > 5000
    assert result.sample_before and all(arm.sample for arm in result.arms)


def test_what_is_filed_names_no_folder_of_this_machine(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from warmstart.recipes.reproduce import system_recipe, write_verdict

    monkeypatch.setenv("WARMSTART_RESULTS", str(tmp_path))
    result = ComparisonResult.model_validate_json((world["root"] / "run" / "result.json").read_text())
    assert [str(world["root"]) in name for name in result.data] == [True]
    for name, corpus in (("cast", "${speech}/text"), ("hyperofa", None)):
        recipe = system_recipe(name)
        filed = json.loads(write_verdict(result, recipe, "small").read_text())
        plain = recipe.scaled("small").steps["compare"]["corpus"]
        assert filed["data"] == {corpus or plain: next(iter(result.data.values()))}
        assert str(world["root"]) not in json.dumps(filed)


def test_measures_are_those_of_each_arms_models_before_and_after_training(world: dict[str, Any]) -> None:
    from warmstart.recipes.operations.evaluate import EvaluateSettings, evaluate

    result = ComparisonResult.model_validate_json((world["root"] / "run" / "result.json").read_text())
    mean = result.arms[1]
    corpus = {**world["corpus"], "path": str(world["root"] / "old")}
    alone = evaluate(EvaluateSettings.parse({"source": mean.checkpoint, "corpus": corpus}))
    found = mean.measures["old.bits_per_byte"]
    assert found.final.per_seed[0] == alone["bits_per_byte"]
    assert found.start.per_seed[0] == found.start.per_seed[1] != found.final.per_seed[0], "no row is drawn"
    assert set(mean.measures) == {f"old.{key}" for key in ("bits_per_byte", "bytes", "tokens", "seconds")}
    assert result.claims[1].holds is not None or "noise" in result.claims[1].measured
    titles = [table["title"] for table in result.tables]
    assert titles == ["Measured before → after training"], "two arms have no ranks worth telling"
    assert result.tables[0]["columns"] == ["arm", "old.bits_per_byte", "old.bytes"], "claimed, and asked for"
    assert "old.bits_per_byte" in (world["root"] / "run" / "report.html").read_text()


def test_the_seed_reaches_data_order_and_random_rows(world: dict[str, Any]) -> None:
    result = ComparisonResult.model_validate_json((world["root"] / "run" / "result.json").read_text())
    first, second = result.arms[0].curves
    assert first.points[0].bpb != second.points[0].bpb


def test_running_again_does_nothing_twice(world: dict[str, Any]) -> None:
    def made() -> dict[Path, int]:
        """When each artifact was made; `step.json` is touched when it is asked for."""
        return {path: path.stat().st_ctime_ns for path in (world["root"] / "cache").glob("*/output")}

    before = made()
    run_recipe(world["recipe"], world["root"] / "again", cache=world["root"] / "cache")
    after = made()
    assert before == after and len(before) > 10


def test_the_trained_model_opens_in_plain_transformers_and_writes(world: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = world["root"] / "run" / "checkpoints" / "source"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    given = tokenizer("the cat", return_tensors="pt", return_token_type_ids=False)
    text = tokenizer.decode(model.generate(**given, max_new_tokens=8, do_sample=False)[0])
    assert text.startswith("the cat") and len(text) > len("the cat")


def test_the_demo_prints_its_contract(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from warmstart.cli import main

    monkeypatch.chdir(tmp_path)
    source = world["root"] / "run" / "checkpoints" / "source"
    words = ["demo", "--source", str(source), "--corpus", str(world["root"] / "new"), "--vocab-size", "310"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--max-tokens", "4096", "--json"])
    assert stopped.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"] > 0 and Path(found["report"]).is_file()
    assert [arm["name"] for arm in found["arms"]] == ["scratch", "random", "mean-of-pieces", "focus"]
    for arm in found["arms"]:
        assert {"name", "final_bpb", "tokens_to_target", "ratio"} <= set(arm) and arm["final_bpb"] > 0
    assert found["arms"][0]["ratio"] == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"baseline": "scrach"}, ["'scrach' is no arm", "did you mean 'scratch'"]),
        ({"seeds": [0, 0]}, ["seeds must be different"]),
        ({"seeds": [1000]}, ["seeds must be different"]),
        ({"train": {}}, ["equal tokens", "max_tokens"]),
        ({"claims": [{"kind": "saving", "text": "t", "arm": "men", "at_most": 1}]}, ["'men'", "'mean'"]),
        ({"measures": {"m": {"type": "initialise", "tokenizer": "t"}}}, ["measures nothing", "evaluate"]),
        ({"measures": {"m": {"type": "evaluate", "source": "s", "corpus": "c"}}}, ["measure m", "`source`"]),
        ({"measures": {"m": {"type": "evaluate"}}}, ["measure m", "corpus"]),
        ({"measures": {"odl": {"type": "evaluate", "corpus": "c"}}}, ["'old'", "'odl'"]),
        (
            {
                "claims": [],
                "arms": {
                    "scratch": {
                        "start": {"type": "initialise", "like": "x", "tokenizer": "t"},
                        "step": "evaluate",
                    }
                },
            },
            ["'evaluate' step does not train", "train-rows"],
        ),
        (
            {
                "claims": [],
                "arms": {
                    "scratch": {
                        "start": {"type": "initialise", "like": "x", "tokenizer": "t"},
                        "train": {"bta": 1},
                    }
                },
            },
            ["arm scratch", "bta"],
        ),
        (
            {"claims": [], "arms": {"scratch": {"start": {"type": "transplnt"}}}},
            ["'transplnt'", "'transplant'", "arm scratch"],
        ),
    ],
)
def test_what_would_fail_later_is_refused_first(
    world: dict[str, Any], change: dict[str, Any], words: list[str]
) -> None:
    step = {k: v for k, v in world["recipe"].steps["compare"].items() if k != "type"}
    with pytest.raises(UserError) as caught:
        check(CompareSettings.parse({**step, **change}))
    for word in words:
        assert word in caught.value.sentence


def test_named_sources_are_trained_once_and_found_by_name(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import warmstart.recipes.sources as sources

    (tmp_path / "mini.yaml").write_text(
        json.dumps(
            {
                "name": "mini",
                "steps": {"t": {"type": "tokenizer", "corpus": world["corpus"], "vocab_size": 300}},
            }
        )
    )
    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    runner = Runner(tmp_path / "cache")
    settings = {"corpus": world["corpus"], "like": "mini", "vocab_size": 290}
    first = runner.step("tokenizer", settings)
    assert sources.source_names() == ["mini"] and sources.is_named_source("mini")
    assert len(list((tmp_path / "cache").iterdir())) == 2, "the source and the step"
    assert runner.step("tokenizer", settings) == first


def test_a_changed_source_recipe_is_trained_anew(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import warmstart.recipes.sources as sources

    monkeypatch.setattr(sources, "FOLDER", tmp_path)
    runner = Runner(tmp_path / "cache")
    found = []
    for size in (300, 290, 300):
        step = {"type": "tokenizer", "corpus": world["corpus"], "vocab_size": size}
        (tmp_path / "mini.yaml").write_text(json.dumps({"name": "mini", "steps": {"t": step}}))
        found.append(runner.step("source", {"name": "mini"}))
    assert found[0] == found[2] != found[1]
