"""`warmstart plan`: what it prints, and how it answers mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runner import call
from plan_jobs import llama

from warmstart.shape.plan import open_anatomy

EXAMPLE = Path(__file__).parents[2] / "examples" / "configs" / "mt-nlg-530b.yaml"


@pytest.fixture
def model(tmp_path: Path) -> str:
    file = tmp_path / "model.json"
    file.write_text(json.dumps(llama()))
    return str(file)


def test_the_example_is_mt_nlg():
    found = json.loads(call("plan", "--config-file", str(EXAMPLE), "--json").out)
    assert found["model"]["parameters"]["total"] == pytest.approx(530e9, rel=0.02)
    assert found["layouts"][0]["devices_per_replica"] == 280
    assert found["schedule"][0]["batch_size"] == 32
    assert "--rampup-batch-size 32 32 5859375" in found["launch"]["megatron"]
    text = call("plan", "--config-file", str(EXAMPLE)).out
    assert "10.6 TB" in text and "--tensor-model-parallel-size 8" in text and "14.2%" in text


def test_a_config_file_and_its_changes(model: str):
    words = ["plan", model, "--hardware", "a100-80gb", "--devices", "4", "--batch-size", "32"]
    found = json.loads(call(*words, "--json").out)
    wider = json.loads(call(*words, "--json", "--config", "{intermediate_size: 320}").out)
    grown = 4 * 3 * 64 * 160
    assert wider["model"]["parameters"]["total"] - found["model"]["parameters"]["total"] == grown
    text = call(*words, "--sources", model).out
    assert "Best of" in text and "per_device_train_batch_size" in text and "train the source on" in text
    small = json.loads(call(*words, "--json", "--hardware.memory-gb", "0.004").out)
    assert small["fitting"] < found["fitting"]


def test_a_checkpoint_is_read_without_its_weights(tmp_path: Path):
    import torch
    import transformers

    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=4, decoder_start_token_id=0
    )
    model = transformers.T5ForConditionalGeneration(config)
    tied = sum(p.numel() for p in model.parameters())
    model.save_pretrained(tmp_path / "tied")
    assert open_anatomy(str(tmp_path / "tied"), {}).parameters().total == tied
    model.lm_head.weight = torch.nn.Parameter(torch.randn(40, 16))
    model.save_pretrained(tmp_path / "untied")
    assert open_anatomy(str(tmp_path / "untied"), {}).parameters().total == tied + 40 * 16


def test_measured_verdicts_are_used(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    small = tmp_path / "small.json"
    small.write_text(json.dumps(llama(num_hidden_layers=2)))
    monkeypatch.setenv("WARMSTART_RESULTS", str(tmp_path))
    ratio = {"mean": 0.77, "low": 0.7, "high": 0.8, "per_seed": [0.77]}
    arm = {"name": "bert2bert", "savings": [{"axis": "flops", "ratio": ratio}]}
    other = {"name": "mango", "savings": [{"axis": "flops", "ratio": ratio}]}
    (tmp_path / "007-bert2bert.small.json").write_text(json.dumps({"arms": [arm, other]}))
    words = ["plan", model, "--hardware", "l4", "--sources", str(small), "--json"]
    found = {row["surgery"]: row for row in json.loads(call(*words).out)["routes"]}
    assert (found["bert2bert"]["share"], found["bert2bert"]["basis"]) == (0.77, "measured")
    assert found["mango"]["basis"] == "published", "another system's verdict says nothing about it"
    told = json.loads(call(*words, "--measured", "{bert2bert: 0.5}").out)
    assert {row["surgery"]: row["share"] for row in told["routes"]}["bert2bert"] == 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no model was named"),
        (["nowhere.json"], "cannot read the config"),
        (["MODEL", "--hardware", "a100"], "unknown hardware 'a100'"),
        (["MODEL", "--optimizer", "adam", "--hardware", "l4"], "did you mean 'adamw'"),
        (["MODEL", "--sequence-length", "4000", "--hardware", "l4"], "longer than the model's 256 positions"),
        (["MODEL", "--tensor", "3", "--hardware", "l4"], "use one of 1, 2, 4"),
        (["MODEL", "--devices", "7", "--hardware", "l4"], "cannot share this model"),
        (["MODEL", "--zero-stage", "4"], "less than or equal to 3"),
        (["MODEL", "--config", "{hidden_size: 63}", "--hardware", "l4"], "contradict"),
        (["MODEL", "--ramp.start", "7", "--ramp.tokens", "1e6", "--hardware", "l4"], "do not lead from 7"),
        (["--config", "{model_type: mamba}"], "the architecture 'mamba' is unknown"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], said: str, model: str):
    done = call("plan", *(model if word == "MODEL" else word for word in words))
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1 and not done.out


def test_the_step_tells_the_numbers_of_the_command(tmp_path: Path, model: str):
    from warmstart.recipes.runner import Runner

    given = {"hardware": "a100-80gb", "devices": 4, "batch_size": 32}
    output = Runner(tmp_path / "cache").step("plan", given | {"source": model})
    told = json.loads((output / "plan.json").read_text())
    words = ["plan", model, "--hardware", "a100-80gb", "--devices", "4", "--batch-size", "32", "--json"]
    found = json.loads(call(*words).out)
    assert told["plan"] == found
    assert told["parameters"] == found["model"]["parameters"]["total"]
    assert told["days"] == found["layouts"][0]["days"] and told["tensor"] == 1
    other = Runner(tmp_path / "cache").step(
        "plan", given | {"source": model, "config": {"model_type": "gpt2"}}
    )
    assert json.loads((other / "plan.json").read_text())["plan"]["model"]["family"] == "gpt2"
