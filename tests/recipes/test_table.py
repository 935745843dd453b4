"""The table of initialisers in a tiny word cipher."""

from __future__ import annotations

import functools
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warmstart.evaluation import interval
from warmstart.evaluation.results import Interval
from warmstart.foundation.errors import UserError
from warmstart.recipes import cost as cost_module
from warmstart.recipes.cost import Cost, measure_cost
from warmstart.recipes.runner import Runner, run_recipe
from warmstart.recipes.schema import Recipe
from warmstart.recipes.shipped_table import RECIPE, stored_tables
from warmstart.recipes.table import TableSettings, WorldSettings, _candidates, registered, run_table
from warmstart.recipes.table_result import TableResult, TableRow, TableWorld, shown
from warmstart.vocabulary.rows._base import initialisers
from warmstart.vocabulary.settings import TransplantSettings

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
SHARED = {"unit": "line", "valid_fraction": 0.15, "test_fraction": 0.15}
WORDS = ["the", "cat", "dog", "house", "sees", "small", "green", "big", "old", "runs", "over", "river"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A recipe with one world of words in cipher, run once; costs are not measured but made up."""
    root = tmp_path_factory.mktemp("table")
    rng, text = random.Random(1), root / "text.txt"
    text.write_text("".join(" ".join(rng.choice(WORDS) for _ in range(60)) + ".\n" for _ in range(60)))
    plain = {"path": str(text), **SHARED}
    secret = {"path": "cipher/words", "options": {"of": str(text)}, **SHARED}
    train = {"max_tokens": 1500, "block_size": 32, "per_device_train_batch_size": 4}
    config = {"model_type": "llama", **SIZES}
    steps = {
        "plain": {"type": "tokenizer", "corpus": plain, "vocab_size": 330},
        "start": {"type": "initialise", "tokenizer": "${plain}", "config": config},
        "source": {"type": "train", "source": "${start}", "corpus": plain, **train},
        "secret": {"type": "tokenizer", "corpus": secret, "like": "${source}", "vocab_size": 340},
        "table": {
            "type": "table",
            "worlds": {
                "cipher": {
                    "describe": "words in cipher",
                    "source": "${source}",
                    "tokenizer": "${secret}",
                    "corpus": secret,
                    "truth": str(text),
                    "options": {"align": {"top_k": 5}},
                    "left_out": {"focus": "it is not asked"},
                }
            },
            "initialisers": ["align", "focus", "wechsel"],
            "train": train | {"max_tokens": 600, "eval_points": [0.5]},
            "learning_rates": [],
            "seeds": [0, 1],
            "eval_max_bytes": 2000,
        },
    }
    recipe = Recipe.parse({"name": "tiny-table", "steps": steps})
    patch = pytest.MonkeyPatch()
    patch.setattr(
        cost_module, "measure_cost", lambda settings: Cost(seconds=1.5, peak_mb=20.0, start_mb=300.0)
    )
    done = run_recipe(recipe, root / "run", cache=root / "cache")
    patch.undo()
    result = TableResult.model_validate_json((done["table"] / "table.json").read_text())
    return {
        "done": done,
        "result": result,
        "cache": root / "cache",
        "text": text,
        "root": root,
        "recipe": recipe,
    }


def test_every_initialiser_is_a_row_or_has_a_reason(world: dict[str, Any]) -> None:
    (found,) = world["result"].worlds
    assert {row.initialiser for row in found.rows} == {"scratch", "align"}
    assert found.left_out["focus"] == "it is not asked"
    assert "wechsel" in found.left_out["wechsel"] and len(found.left_out) == 2
    default = TableSettings.model_fields["initialisers"].get_default(call_default_factory=True)
    assert sorted(registered()) == initialisers.names() == default


def test_rows_have_equal_points_and_their_cost(world: dict[str, Any]) -> None:
    (found,) = world["result"].worlds
    assert found.tokens[0] == 0 and len(found.tokens) == 3 and found.tokens[-1] >= 600
    for row in found.rows:
        assert len(row.bpb) == 3 and all(len(point.per_seed) == 2 for point in row.bpb)
        assert (row.seconds, row.peak_mb) == ((None, None) if row.initialiser == "scratch" else (1.5, 20.0))
    assert [row.data for row in found.rows if row.initialiser == "align"] == ["corpus"]


def test_evidence_is_given_to_those_who_ask_for_it_first() -> None:
    there = WorldSettings(source="s", tokenizer="t", corpus="c", source_corpus="d", dictionary="e")
    given = {
        name: [arm.describe for arm in _candidates(initialisers.get(name), there)]
        for name in ("mean-of-pieces", "focus", "wechsel", "align")
    }
    every = "corpus, source corpus, dictionary"
    assert given == {
        "mean-of-pieces": ["", every],
        "focus": ["corpus", every],
        "wechsel": [every],
        "align": ["", every],
    }


def test_gold_rows_are_those_of_the_checkpoint_that_was_trained(world: dict[str, Any]) -> None:
    """Recomputed by hand for one arm: decipher each whole word, look it up, take the cosine."""
    from warmstart.checkpoint import resolve
    from warmstart.corpus.named.cipher import decipher_word, encipher_word
    from warmstart.vocabulary.transplant import transplant

    (found,) = world["result"].worlds
    row = next(row for row in found.rows if row.initialiser == "align")
    settings = {
        "source": str(world["done"]["source"]),
        "tokenizer": str(world["done"]["secret"]),
        "initialiser": {"name": "align", "top_k": 5},
        "corpus": {"path": "cipher/words", "options": {"of": str(world["text"])}, **SHARED},
    }
    made = transplant(TransplantSettings.parse(settings), world["root"] / "made")
    source = resolve(world["done"]["source"])
    old, new = source.load_tokenizer(), made.load_tokenizer()
    before, after = (m.load_model().get_input_embeddings().weight.detach().numpy() for m in (source, made))
    cosines = []
    for token, index in new.get_vocab().items():
        text = new.convert_tokens_to_string([token])
        word = decipher_word(text.strip())
        ids = old(f" {word}", add_special_tokens=False)["input_ids"]
        if text.startswith(" ") and word in WORDS and len(ids) == 1:
            assert encipher_word(word) == text.strip()
            a, b = after[index] - before.mean(axis=0), before[ids[0]] - before.mean(axis=0)
            cosines.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    assert row.gold is not None and row.gold.centred is not None
    assert row.gold.tokens == len(cosines) > 5
    assert row.gold.centred.mean == pytest.approx(np.mean(cosines), abs=1e-5)
    assert next(row for row in found.rows if row.initialiser == "scratch").gold is None


def test_the_page_and_the_terminal_show_the_same_rows(world: dict[str, Any]) -> None:
    (table,) = shown(world["result"])
    finals = [float(row[3].split()[0]) for row in table["rows"]]
    assert finals == sorted(finals) and len(table["columns"]) == len(table["rows"][0]) == 11
    assert any("wechsel is left out" in line for line in table["note"])
    page = (world["done"]["table"] / "report.html").read_text()
    for row in table["rows"]:
        assert row[0] in page and row[1] in page
    assert "it is not asked" in page and "<script" not in page


def test_an_interval_is_shown_as_its_half_width() -> None:
    row = TableRow(initialiser="a", learning_rate=1e-3, bpb=[interval([1.0, 1.2]), interval([1.1])])
    (table,) = shown(
        TableResult(
            title="t",
            seeds=[0],
            machine={},
            worlds=[TableWorld(name="w", describe="", rows=[row], left_out={}, tokens=[0, 9], data={})],
        )
    )
    assert table["columns"][:3] == ["initialiser", "start", "9 tokens"]
    half = (interval([1.0, 1.2]).high - interval([1.0, 1.2]).low) / 2
    assert table["rows"][0][1:3] == [f"1.100 ±{half:.3f}", "1.100"]
    assert isinstance(row.bpb[0], Interval)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initialisers": ["focsu"]}, "did you mean 'focus'"),
        ({"worlds": {}}, "at least one world"),
        ({"initialisers": []}, "at least one world and one initialiser"),
        ({"seeds": [1000]}, "seeds must be different"),
        ({"initialisers": ["wechsel"]}, "no initialiser can start: wechsel"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    world: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    given = {
        "worlds": {
            "cipher": {
                "source": str(world["done"]["source"]),
                "tokenizer": str(world["done"]["secret"]),
                "corpus": {"path": str(world["text"]), "unit": "line"},
                "left_out": {"focus": "no"},
            }
        }
    }
    with pytest.raises(UserError, match=message):
        run_table(TableSettings.parse(given | change), Runner(world["cache"]))


def test_a_shipped_table_is_filed_unless_it_was_changed(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import warmstart.recipes.shipped_table as shipped

    plain = {**world["recipe"].model_dump(mode="json"), "name": "initialisers", "scales": {"smoke": {}}}
    (tmp_path / "table.yaml").write_text(json.dumps(plain))
    monkeypatch.setattr(shipped, "RECIPE", tmp_path / "table.yaml")
    monkeypatch.setenv("WARMSTART_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(shipped, "run_recipe", functools.partial(run_recipe, cache=world["cache"]))
    fake = Cost(seconds=1.5, peak_mb=20.0, start_mb=300.0)
    monkeypatch.setattr(cost_module, "measure_cost", lambda settings: fake)
    result, folder = shipped.make_table("smoke", ["table.title=changed"], runs=tmp_path / "runs")
    assert result.title == "changed" and not shipped.stored_tables() and (folder / "report.html").is_file()
    result, _ = shipped.make_table("smoke", runs=tmp_path / "runs")
    assert shipped.stored_tables() == {"initialisers.smoke": result}
    assert result.scale == "smoke" and result.date and [w.name for w in result.worlds] == ["cipher"]
    filed = (tmp_path / "results" / "tables" / "initialisers.smoke.json").read_text()
    assert str(tmp_path) not in filed and str(world["cache"]) not in filed


@pytest.mark.parametrize("name", sorted(stored_tables()))
def test_every_stored_table_is_that_of_the_recipe(name: str) -> None:
    from warmstart.recipes.schema import load_recipe

    result, (_, scale) = stored_tables()[name], name.split(".")
    worlds = load_recipe(RECIPE).scaled(scale).steps["table"]["worlds"]
    assert result.scale == scale and [world.name for world in result.worlds] == list(worlds)
    assert all(len(row.bpb) == len(world.tokens) for world in result.worlds for row in world.rows)


def test_the_shipped_table_names_real_steps_and_scales() -> None:
    from warmstart.recipes.schema import load_recipe

    recipe = load_recipe(RECIPE)
    for scale in ("smoke", "small", "full"):
        recipe.scaled(scale).validate_steps()
    assert len(recipe.steps["table"]["worlds"]) == 4
    assert len([*recipe.steps["table"]["train"]["eval_points"], 1.0]) == 4, "four points after the start"


def test_cost_is_measured_in_another_process(world: dict[str, Any]) -> None:
    settings = {"source": str(world["done"]["source"]), "tokenizer": str(world["done"]["secret"])}
    found = measure_cost(TransplantSettings.parse(settings))
    assert 0 < found.seconds < 60 and found.start_mb > 50 and 0 < found.peak_mb < 2000
    with pytest.raises(UserError, match="needs a corpus of the target"):
        measure_cost(TransplantSettings.parse(settings | {"initialiser": "focus"}))


def test_peak_memory_sees_what_was_held_for_a_moment() -> None:
    """In a process of its own, as it is used: this one may have freed memory in hand."""
    code = """
import json
import numpy as np
from warmstart.recipes.cost import peak_memory

with peak_memory() as found:
    held = np.ones(20_000_000)
    for _ in range(10):
        held += 1
    del held
print(json.dumps(found))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert 150e6 < found["above"] < 400e6, found
