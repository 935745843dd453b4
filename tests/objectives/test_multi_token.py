"""Multi-token prediction: the value, the second head's life beside the model, and its end on save."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "training"))
import training_tiny as tiny
from objectives_taught import model, objective
from torch.nn import functional as F

from warmstart.objectives import LossModule


def blocks() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 20, (3, 9))


@pytest.mark.parametrize("tied", [True, False])
def test_is_the_sum_of_both_means(tied: bool) -> None:
    """Value and gradients in body and both heads, from full logits; the heads share no weights."""
    made, reader = objective("multi-token", second_weight=0.5), model(tied=tied, attention_dropout=0.0)
    module = LossModule(reader, made)
    batch = made.collate(blocks(), np.random.default_rng(0))
    ids = batch["input_ids"]
    assert torch.equal(module.companions.weight, reader.lm_head.weight)
    assert module.companions.weight.data_ptr() != reader.lm_head.weight.data_ptr()
    with torch.no_grad():
        module.companions.weight += 0.1 * torch.randn_like(module.companions.weight)
    total, count = module(batch)
    hidden = reader.model(input_ids=ids).last_hidden_state
    first = F.cross_entropy(reader.lm_head(hidden[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    second = F.cross_entropy(module.companions(hidden[:, :-2]).flatten(0, 1), ids[:, 2:].flatten())
    expected = first + 0.5 * second
    assert count.item() == 3 * 8 and (total / count).item() == pytest.approx(expected.item(), rel=1e-12)
    watched = [module.companions.weight, reader.lm_head.weight, reader.model.layers[0].mlp.up_proj.weight]
    ours, theirs = (torch.autograd.grad(value, watched) for value in (total / count, expected))
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-9)


def test_dropout_is_as_in_training() -> None:
    made, reader = objective("multi-token"), model(attention_dropout=0.5)
    module, batch = LossModule(reader, made), made.collate(blocks(), np.random.default_rng(0))
    assert module(batch)[0].item() != module(batch)[0].item()
    module.eval()
    assert module(batch)[0].item() == module(batch)[0].item()


def run(folder: Path, reader: Any, **changes: Any) -> Any:
    return tiny.run(folder, model=reader, objective="multi-token", **changes)


def test_the_second_head_learns_and_is_dropped_on_save(tmp_path: Path) -> None:
    reader = tiny.llama()
    names = {name for name, _ in reader.named_parameters()}
    result = run(tmp_path / "a", reader)
    saved = tiny.weights(result.checkpoint)
    assert names == {name for name, _ in reader.named_parameters()} == saved.keys() & names
    assert not [name for name in saved if "companions" in name]
    beside = tiny.weights(result.checkpoint, "companions.safetensors")
    assert beside.keys() == {"companions.weight"}
    assert not torch.equal(beside["companions.weight"], saved["model.embed_tokens.weight"])
    assert "exp_avg/companions.weight" in tiny.weights(result.checkpoint, "optimizer.safetensors")
    from transformers import AutoModelForCausalLM

    again = AutoModelForCausalLM.from_pretrained(result.checkpoint)
    assert torch.equal(again.lm_head.weight, reader.lm_head.weight)


def test_a_run_with_a_second_head_resumes_exactly(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", tiny.llama(dropout=0.2))
    run(tmp_path / "part", tiny.llama(dropout=0.2), save_total_limit=None)
    for name in ("step-8", "step-12"):
        (tmp_path / "part/checkpoints" / name / "state.json").unlink()
    rest = run(tmp_path / "part", tiny.llama(dropout=0.2))
    assert tiny.same_bits(rest.checkpoint, whole.checkpoint) and tiny.curve(rest) == tiny.curve(whole)
    one, two = (tiny.weights(r.checkpoint, "companions.safetensors") for r in (rest, whole))
    assert torch.equal(one["companions.weight"], two["companions.weight"])


def test_without_companions_it_is_next_token_prediction(tmp_path: Path) -> None:
    reader, batch = model(attention_dropout=0.0), None
    found = []
    for name in ("causal", "multi-token"):
        made = objective(name)
        batch = made.collate(blocks(), np.random.default_rng(0))
        found.append(made.loss(reader, batch)[0].item())
    assert found[0] == found[1]
