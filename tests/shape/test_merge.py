"""Merged tensors are the formulas' over whole tensors, whatever pieces they were read in."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from shape_files import tensors
from tiny_language_models import model_for, tokenizer_for

from warmstart.checkpoint import Lineage, resolve, save_checkpoint
from warmstart.foundation.errors import UserError
from warmstart.recipes.runner import Runner
from warmstart.shape.merge import Tensors, merges
from warmstart.shape.merge_values import value_at

SIZE = 1000


def drawn(count: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SIZE, generator=generator, dtype=torch.float64) for _ in range(count)]


def merged(
    method: Any, models: list[torch.Tensor], base: torch.Tensor | None = None, **more: Any
) -> torch.Tensor:
    """One tensor merged in pieces of 7."""

    def pieces(tensor: torch.Tensor) -> Any:
        def again() -> Iterator[torch.Tensor]:
            return iter(tensor.split(7))

        return again

    entry, own = merges.choose(method)
    tensors = Tensors(
        name="x",
        models=[pieces(model) for model in models],
        base=None if base is None else pieces(base),
        weights=more.get("weights", [None] * len(models)),
        densities=more.get("densities", [None] * len(models)),
        shared=more.get("shared", {}),
        generator=torch.Generator().manual_seed(1),
    )
    return torch.cat(list(entry.target(own, tensors)))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_linear_is_the_weighted_mean() -> None:
    a, b, c = drawn(3)
    close(merged("linear", [a, b, c]), (a + b + c) / 3)
    close(merged("linear", [a, b, c], weights=[1, 3, 4.0]), (a + 3 * b + 4 * c) / 8)
    close(merged({"name": "linear", "normalize": False}, [a, b], weights=[2, -1]), 2 * a - b)
    with pytest.raises(UserError, match="add up to zero"):
        merged("linear", [a, b], weights=[1, -1])


def test_slerp_keeps_the_arc() -> None:
    a, b = drawn(2)
    a, b = a / a.norm(), b / b.norm()
    for t in (0.0, 0.25, 0.5, 1.0):
        found = merged({"name": "slerp", "t": t}, [a, b])
        angle = math.acos(float(a @ b))
        assert float(found.norm()) == pytest.approx(1, abs=1e-12)
        assert math.acos(min(1.0, float(a @ found))) == pytest.approx(t * angle, abs=1e-6)
    close(merged("slerp", [b], base=a, shared={"t": 1.0}), b)
    close(merged("slerp", [a, a * (1 + 1e-9)]), a * (1 + 5e-10))
    close(merged("slerp", [a, torch.zeros_like(a)]), a / 2)
    with pytest.raises(UserError, match="between two models, and 3"):
        merged("slerp", [a, b, a])


def test_task_arithmetic_adds_changes() -> None:
    base, a, b = drawn(3)
    close(merged("task-arithmetic", [a, b], base, weights=[0.5, -1]), base + 0.5 * (a - base) - (b - base))
    close(merged("task-arithmetic", [a], base, shared={"lambda": 0.3}), base + 0.3 * (a - base))
    normal = {"name": "task-arithmetic", "normalize": True}
    close(merged(normal, [a, b], base, weights=[1, 3]), (a + 3 * b) / 4)
    with pytest.raises(UserError, match="needs a base model"):
        merged("task-arithmetic", [a, b])


def ties_by_hand(base: torch.Tensor, models: list[torch.Tensor], density: float, weights: list[float]) -> Any:
    kept = []
    for model in models:
        change = model - base
        least = change.abs().sort(descending=True).values[round(density * SIZE) - 1]
        kept.append(torch.where(change.abs() >= least, change, 0))
    out = base.clone()
    for i in range(SIZE):
        weighted = [w * float(k[i]) for w, k in zip(weights, kept)]
        sign = math.copysign(1, sum(weighted)) if sum(weighted) else 0
        agree = [(w, v) for w, v in zip(weights, weighted) if v * sign > 0]
        if agree:
            out[i] += sum(v for _, v in agree) / sum(w for w, _ in agree)
    return out


@pytest.mark.parametrize("density", [0.1, 0.35, 1.0])
def test_ties_trims_elects_and_averages(density: float) -> None:
    base, a, b, c = drawn(4)
    weights = [1.0, 0.5, 2.0]
    expected = ties_by_hand(base, [a, b, c], density, weights)
    close(merged({"name": "ties", "density": density}, [a, b, c], base, weights=weights), expected)
    close(merged("ties", [a, b, c], base, weights=weights, densities=[density] * 3), expected)
    with pytest.raises(UserError, match="a density is a share"):
        merged("ties", [a], base, densities=[1.5])


def test_dare_keeps_a_share_and_its_expectation() -> None:
    base, a = drawn(2)
    found = (merged({"name": "dare", "density": 0.25}, [a], base) - base) / (a - base)
    kept = found.abs() > 1e-9
    torch.testing.assert_close(found[kept], torch.full_like(found[kept], 4.0))
    assert 0.2 < float(kept.double().mean()) < 0.3
    l1 = merged({"name": "dare", "density": 0.25, "rescale": "l1"}, [a], base) - base
    assert float(l1.abs().sum()) == pytest.approx(float((a - base).abs().sum()), rel=1e-12)
    close(merged({"name": "dare", "density": 1.0}, [a], base), a)
    assert torch.equal(merged("dare", [a, a], base), merged("dare", [a, a], base)), "can be repeated"
    b = drawn(1, seed=5)[0]
    whole = {"name": "dare", "density": 1.0, "sign": "elected", "normalize": True}
    close(merged(whole, [a, b], base), ties_by_hand(base, [a, b], 1.0, [1.0, 1.0]))


def test_bai_is_two_balances() -> None:
    pretrained, instructed, reasoning = drawn(3)
    found = merged({"name": "bai", "alpha": 0.3, "beta": 0.7}, [instructed, reasoning], pretrained)
    first = merged("linear", [instructed, reasoning], weights=[0.3, 0.7])
    close(found, merged("linear", [first, pretrained], weights=[0.7, 0.3]))
    vectors = 0.7 * (0.3 * (instructed - pretrained) + 0.7 * (reasoning - pretrained))
    close(found, pretrained + vectors)


def test_parameters_by_layer_and_by_name() -> None:
    at = "model.layers.{}.mlp.up_proj.weight".format
    parameters: Any = {
        "weight": [0.0, 1.0, 0.5],
        "t": [{"filter": "attn", "value": 0.2}, {"filter": "mlp", "value": [0, 1]}, {"value": 0.7}],
    }
    assert [value_at(parameters, "weight", name=at(i), layers=5) for i in range(5)] == [0, 0.5, 1, 0.75, 0.5]
    assert [value_at(parameters, "t", name=at(i), layers=3) for i in range(3)] == [0, 0.5, 1]
    assert value_at(parameters, "t", name="model.layers.1.self_attn.q.weight", layers=3) == 0.2
    assert value_at(parameters, "t", name="model.norm.weight", layers=3) == 0.7
    assert value_at(parameters, "density", name="model.norm.weight", layers=3) is None
    with pytest.raises(UserError, match="must be a number"):
        value_at({"t": "half"}, "t", name="a", layers=1)  # type: ignore[dict-item]


def stored(folder: Path, seed: int, family: str = "llama", dtype: Any = torch.float32, **change: Any) -> str:
    tokenizer = change.pop("tokenizer", None) or tokenizer_for(family)
    model = model_for(family, len(tokenizer) + change.pop("rows", 0)).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator).to(dtype), alpha=0.1)
    save_checkpoint(
        folder, model, tokenizer, lineage=Lineage.of("test"), max_shard_size=change.pop("size", "5GB")
    )
    return str(folder)


def test_a_step_merges_stored_models(tmp_path: Path) -> None:
    a, b = stored(tmp_path / "a", 1), stored(tmp_path / "b", 2, size="30KB")
    given = {"models": [a, {"model": b, "parameters": {"weight": 3}}], "max_shard_size": "50KB"}
    out = Runner(tmp_path / "cache").step("merge", given)
    ours, theirs = tensors(a), tensors(b)
    for name, tensor in tensors(out).items():
        torch.testing.assert_close(tensor, ours[name] * 0.25 + theirs[name] * 0.75, rtol=0, atol=1e-6)
    record = json.loads((out / "warmstart.json").read_text())["lineage"]
    assert [(p["role"], p["name"]) for p in record["parents"]] == [("model", "a"), ("model", "b")]
    assert "\n- merge\n" in (out / "README.md").read_text()
    resolve(out).load_model()
    narrow = Runner(tmp_path / "cache").step("merge", {**given, "dtype": "bfloat16"})
    assert {t.dtype for t in tensors(narrow).values()} == {torch.bfloat16}
    assert resolve(narrow).config["dtype"] == "bfloat16"


def test_spellings_of_mergekit_files_are_taken(tmp_path: Path) -> None:
    a, b, base = (stored(tmp_path / name, seed) for name, seed in (("a", 1), ("b", 2), ("base", 0)))
    given = {
        "merge_method": "task_arithmetic",
        "base_model": base,
        "models": [
            {"model": a},
            {"model": b, "parameters": {"weight": [{"filter": "mlp", "value": 0}, {"value": 1}]}},
        ],
        "parameters": {"weight": 0.5},
    }
    out = tensors(Runner(tmp_path / "cache").step("merge", given))
    ours, theirs, old = tensors(a), tensors(b), tensors(base)
    for name, tensor in out.items():
        second = 0.0 if "mlp" in name else 1.0
        expected = old[name] + 0.5 * (ours[name] - old[name]) + second * (theirs[name] - old[name])
        torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)


def test_models_that_cannot_be_merged_are_refused_with_what_differs_first(tmp_path: Path) -> None:
    a = stored(tmp_path / "a", 1)
    larger = tokenizer_for("llama").__class__.from_pretrained(a)
    larger.add_tokens(["<more>"])
    others = {
        "gpt2": (stored(tmp_path / "g", 1, "gpt2"), "a gpt2 cannot be merged with a llama"),
        "rows": (stored(tmp_path / "r", 1, rows=8), "has the shape .* `transplant` the tokenizer"),
        "tokens": (stored(tmp_path / "t", 1, tokenizer=larger), "has the shape"),
    }
    runner = Runner(tmp_path / "cache")
    for other, words in others.values():
        with pytest.raises(UserError, match=words):
            runner.step("merge", {"models": [a, other]})
    swapped = stored(tmp_path / "s", 1)
    file = Path(swapped) / "tokenizer.json"
    table = json.loads(file.read_text())
    vocab = table["model"]["vocab"]
    first, second = list(vocab)[10:12]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    file.write_text(json.dumps(table))
    (Path(swapped) / "warmstart.json").unlink()
    with pytest.raises(UserError, match=r"the tokenizers differ: .* is 1[01] here and 1[01] in a"):
        runner.step("merge", {"models": [a, swapped]})
    with pytest.raises(UserError, match="unknown merge 'tyes'"):
        runner.step("merge", {"models": [a, a], "merge_method": "tyes"})


def test_one_model_alone_is_refused_and_configurations_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = stored(tmp_path / "a", 1), stored(tmp_path / "b", 2)
    said: list[str] = []
    monkeypatch.setattr("warmstart.shape.merging.note", said.append)

    def merge_them(models: list[str]) -> Path:
        return Runner(tmp_path / "cache").step("merge", {"models": models})

    with pytest.raises(UserError, match="one model alone cannot be merged"):
        merge_them([a])
    file = Path(b) / "config.json"
    config = json.loads(file.read_text())
    rotary = config["rope_parameters"]
    file.write_text(json.dumps({**config, "rope_parameters": None, "rope_theta": rotary["rope_theta"]}))
    merge_them([a, b])
    assert said == [], "another spelling"
    file.write_text(json.dumps({**config, "rope_parameters": {**rotary, "rope_theta": 77.0}}))
    out = merge_them([a, b])
    assert "of b and a differ, and the latter is taken: rope_parameters: {'rope_theta': 77.0" in said[0]
    assert json.loads((out / "config.json").read_text())["rope_parameters"] == rotary
    heads = config["num_attention_heads"] // 2
    file.write_text(json.dumps({**config, "num_attention_heads": heads}))
    with pytest.raises(UserError, match=f"num_attention_heads is {heads}, in a it is"):
        merge_them([a, b])
