"""Step `grow-learned`: checkpoint in, larger checkpoint out; and training that counts on from it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

sys.path.append(str(Path(__file__).parents[1] / "vocabulary"))
from vocab_extended import extended
from vocab_families import FAMILIES, random_model
from vocab_tokenizers import sentences

from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.corpus import open_corpus, pack
from warmstart.evaluation import bits_per_byte
from warmstart.evaluation.curves import Curve
from warmstart.foundation.errors import UserError
from warmstart.recipes.operations.grow_learned import GrowLearnedStep
from warmstart.recipes.runner import Runner
from warmstart.recipes.training_step import held_out_sample
from warmstart.recipes.versions import later_versions
from warmstart.shape.grow_learned import LearnedGrowthSettings, grow_learned
from warmstart.shape.learned import growths
from warmstart.shape.learned._through import through
from warmstart.training import train
from warmstart.training.loop import flops_per_token, make_objective
from warmstart.training.settings import TrainSettings

TO = {"hidden_size": 64, "num_hidden_layers": 4}


pytestmark = pytest.mark.usefixtures("one_thread")


def settings(folder: Path, **changes: Any) -> dict[str, Any]:
    """A random decoder, text for it, and what the step is told."""

    source, _ = extended()
    kind, task, _, sizes = FAMILIES["qwen3"]
    config = AutoConfig.for_model(kind, **sizes, vocab_size=len(source), bos_token_id=None, pad_token_id=None)
    save_checkpoint(
        folder / "small", random_model(config, task, torch.float32), source, lineage=Lineage.of("test")
    )
    (folder / "text.txt").write_text("\n".join(sentences()))
    return {
        "source": str(folder / "small"),
        "to": TO,
        "corpus": {"path": str(folder / "text.txt"), "unit": "line"},
        "block_size": 16,
        "max_steps": 12,
        "learning_rate": 3e-3,
        "eval_max_bytes": 400,
        "eval_points": [],
        "per_device_train_batch_size": 4,
        **changes,
    }


def curve_of(output: Path) -> Curve:
    return Curve.model_validate_json((output / "training.json").read_text())


@pytest.mark.parametrize("growth", ["ligo", "mango"])
def test_it_learns_and_leaves_an_ordinary_checkpoint(growth: str, tmp_path: Path) -> None:

    given = settings(tmp_path, growth=growth)
    output = Runner(tmp_path / "steps").step("grow-learned", given)
    curve = curve_of(output)
    assert curve.final < curve.points[0].bpb - 0.01
    model = AutoModelForCausalLM.from_pretrained(output)
    assert model.config.hidden_size == 64 and len(model.model.layers) == 4
    made = resolve(output)
    lineage = made.lineage
    assert lineage is not None and lineage.operation == "grow-learned" and lineage.seeds == {"seed": 0}
    assert len(lineage.parents) == 1 and "the map was learned" in lineage.measured["function"]
    plain = GrowLearnedStep.parse(given).loop()
    tokenizer = made.load_tokenizer()
    own = flops_per_token(model, make_objective(model, tokenizer, plain), 16) * curve.points[-1].tokens
    measured = lineage.measured
    assert measured["FLOPs of the map"] > 0
    assert curve.points[-1].flops == pytest.approx(own + measured["FLOPs of the map"])

    texts = held_out_sample(open_corpus(GrowLearnedStep.parse(given).corpus).documents("valid"), 400)
    again = bits_per_byte(made.load_model(), tokenizer, texts, task="causal", context_length=16)
    assert again.bpb == pytest.approx(curve.final, rel=1e-5), "what is stored is what was measured"


def test_without_a_step_it_is_the_growth_that_it_starts_from(tmp_path: Path) -> None:
    given = settings(tmp_path, learning_rate=1e-30, max_steps=1, width={"name": "exact", "split": "even"})
    learned = resolve(Runner(tmp_path / "steps").step("grow-learned", given)).load_model()
    told = {"source": given["source"], "to": TO, "depth": "stack", "width": given["width"]}
    grown = resolve(Runner(tmp_path / "steps").step("grow", told)).load_model()
    for (name, one), other in zip(learned.named_parameters(), grown.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:

    given = settings(tmp_path)
    source = resolve(given["source"])
    tokenizer = source.load_tokenizer()

    packed = pack(open_corpus(GrowLearnedStep.parse(given).corpus), tokenizer, "train", 16)

    plain = TrainSettings(max_steps=6, block_size=16, save_steps=3, save_total_limit=9)

    def run(folder: str) -> dict[str, torch.Tensor]:
        model, weights = grow_learned(source.load_model(), LearnedGrowthSettings(to=TO))
        objective = through(make_objective(model, tokenizer, plain), weights)
        train(model, tokenizer, packed, plain, tmp_path / folder, objective=objective)
        weights.write(model)
        return {name: p.detach().clone() for name, p in model.named_parameters()}

    whole = run("a")
    shutil.rmtree(tmp_path / "a" / "checkpoints" / "step-6")
    again = run("a")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_further_training_counts_from_where_the_growth_ended(tmp_path: Path) -> None:
    given = settings(tmp_path)
    runner = Runner(tmp_path / "steps")
    grown = runner.step("grow-learned", given)
    told = {key: given[key] for key in ("corpus", "block_size", "max_steps", "eval_max_bytes", "eval_points")}
    told |= {"source": str(grown), "per_device_train_batch_size": 4}
    further, plain = (curve_of(runner.step("train", {**told, "count_on": on})) for on in (True, False))
    spent = curve_of(grown).points[-1]
    for ours, theirs in zip(further.points, plain.points, strict=True):
        assert ours.bpb == theirs.bpb
        assert (ours.step, ours.tokens) == (theirs.step + 12, theirs.tokens + spent.tokens)
        assert ours.flops == theirs.flops + spent.flops and ours.seconds >= spent.seconds
    told["source"] = given["source"]
    with pytest.raises(UserError, match="no curve"):
        runner.step("train", {**told, "count_on": True})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"trainable": "embeddings"}, "the map, not the model"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing"),
        ({"torch_compile": True}, "torch_compile"),
        ({"distributed": "fsdp2"}, "shards"),
        ({"objective": "multi-token"}, "beside the model"),
    ],
)
def test_settings_without_meaning_are_refused(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        Runner(tmp_path / "steps").step("grow-learned", settings(tmp_path, **changes))


def test_the_budget_of_the_map_is_a_hundred_steps() -> None:
    told = {"source": "a", "corpus": "b", "to": TO}
    assert GrowLearnedStep.parse(told).loop().max_steps == 100
    assert GrowLearnedStep.parse({**told, "max_tokens": 64}).loop().max_steps is None
    assert json.loads(GrowLearnedStep.parse(told).model_dump_json())["growth"] == "ligo"


def test_a_changed_way_reruns_the_steps_that_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = growths.get("ligo")
    monkeypatch.setitem(growths._entries, "ligo", dataclasses.replace(entry, version=3))
    assert later_versions(LearnedGrowthSettings(to=TO)) == {"growth ligo": 3}
    assert later_versions(LearnedGrowthSettings(to=TO, growth={"name": "mango"})) == {}
