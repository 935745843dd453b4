"""Stored checkpoints are grown as models in memory are, and what stays is bit-equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from shape_files import stored, tensors

from warmstart.checkpoint import resolve
from warmstart.foundation.errors import UserError
from warmstart.recipes.runner import Runner
from warmstart.shape.grow import GrowSettings, grow
from warmstart.shape.stored import Stored

TO = {
    "llama": {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 3},
    "gpt2": {"n_embd": 64, "n_layer": 4},
    "gpt_neox": {"intermediate_size": 50, "num_hidden_layers": 3},
    "bert": {"intermediate_size": 50, "hidden_size": 64},
    "t5": {"d_model": 48, "num_layers": 3, "d_ff": 44},
}


def logits(folder: Path, family: str) -> Any:
    model = resolve(folder).load_model("auto")
    ids = torch.arange(3, 15).reshape(2, 6)
    more = {"decoder_input_ids": ids} if family == "t5" else {}
    with torch.no_grad():
        return model(input_ids=ids, **more).logits


@pytest.mark.parametrize("family", TO)
def test_a_step_writes_what_the_surgery_makes_in_memory(family: str, tmp_path: Path) -> None:
    source = stored(tmp_path / "source", family, torch.float64)
    out = Runner(tmp_path / "cache").step(
        "grow", {"source": str(source), "to": TO[family], "max_shard_size": "90KB"}
    )
    here = Stored(resolve(source))
    surgery = grow(here.anatomy, GrowSettings.parse({"to": TO[family]}))
    expected = dict(surgery.state(tensors(source)))
    found = Stored(resolve(out))
    assert found.anatomy.sizes == surgery.new.sizes and found.anatomy.layers == surgery.new.layers
    assert found.names.keys() == expected.keys()
    assert all(torch.equal(found.read(name), t) for name, t in expected.items())
    record = json.loads((out / "warmstart.json").read_text())["lineage"]
    assert record["measured"]["parameters"] == sum(t.numel() for t in expected.values())
    assert record["measured"]["function"] == "unchanged" and record["parents"][0]["name"] == "source"
    before, after = logits(source, family), logits(out, family)
    # norms of Llama and rotations are computed in float32 by transformers
    assert float((before - after).abs().max() / before.abs().max()) < 3e-6
    assert len(resolve(out).load_tokenizer()) == len(resolve(source).load_tokenizer())


def test_tensors_that_no_axis_of_the_surgery_touches_are_bit_equal(tmp_path: Path) -> None:
    source = stored(tmp_path / "source", "llama", torch.bfloat16)
    out = Runner(tmp_path / "cache").step(
        "grow", {"source": str(source), "to": {"intermediate_size": 64, "num_hidden_layers": 3}}
    )
    old, new = tensors(source), tensors(out)
    order = (
        [0, 0, 1]
        if torch.equal(
            new["model.layers.1.input_layernorm.weight"], old["model.layers.0.input_layernorm.weight"]
        )
        else [0, 1, 1]
    )
    kept = 0
    for name, tensor in new.items():
        assert tensor.dtype == torch.bfloat16
        if "mlp" in name:
            continue
        origin = name
        if ".layers." in name:
            layer = int(name.split(".")[2])
            origin = name.replace(f".{layer}.", f".{order[layer]}.", 1)
        silent = "o_proj" in name and not tensor.any()
        assert silent or torch.equal(tensor, old[origin]), name
        kept += not silent
    assert kept == len(new) - 3 * 3 - 1


def test_what_cannot_be_grown_is_said(tmp_path: Path) -> None:
    source = str(stored(tmp_path / "source", "llama"))
    runner = Runner(tmp_path / "cache")
    for to, words in [
        ({"hidden_size": 16}, "hidden size would shrink from 32 to 16"),
        (
            {"num_attention_heads": 5},
            r"cannot have num_attention_heads = 5; possible are num_attention_heads = 4 or 8",
        ),
        ({"hidden_sise": 64}, "hidden_size"),
        ({"vocab_size": 64}, "belongs to the tokenizer"),
        ({"num_hidden_layers": 1}, "would shrink from 2 to 1 layers"),
        ({"num_hidden_layers": 2}, "has these sizes already"),
        ({"head_dim": 16}, "rotary"),
    ]:
        with pytest.raises(UserError, match=words):
            runner.step("grow", {"source": source, "to": to})
    with pytest.raises(UserError, match="unknown width 'exakt'"):
        runner.step("grow", {"source": source, "to": {"hidden_size": 64}, "width": "exakt"})
    with pytest.raises(UserError, match="only be copied to a multiple of 32"):
        runner.step(
            "grow",
            {"source": source, "to": {"hidden_size": 40}, "width": {"name": "exact", "hidden": "copy"}},
        )
