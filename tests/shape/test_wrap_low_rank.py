"""Low-rank and sparse updates: nothing changes at first, only they learn, and merged they are one matrix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anatomy_models import build, inputs_of, variants
from shape_files import stored, tensors
from shape_models import logits

from warmstart.checkpoint import inspect, resolve
from warmstart.checkpoint.forms._wrapped import places
from warmstart.foundation.errors import UserError
from warmstart.recipes.runner import Runner
from warmstart.shape.wrap._choose import choose
from warmstart.shape.wrap._godec import godec, largest
from warmstart.shape.wrap._model import unwrap_model, wrap_model
from warmstart.training.parameters import factor_pairs

LOW = {"name": "low-rank", "rank": 3}
SPARSE = {"name": "sparse-low-rank", "rank": 3, "entries": 7}
WAYS = pytest.mark.parametrize("way", [LOW, SPARSE], ids=["low-rank", "sparse-low-rank"])


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


def shaken(model: Any) -> dict[str, Any]:
    """The wrapped maps of a model, whose parameters are made random."""
    found = dict(places(model))
    with torch.no_grad():
        for module in found.values():
            for name in ("a", "b", "values"):
                if hasattr(module, name):
                    getattr(module, name).normal_(0, 0.1)
    return found


@WAYS
@variants(text=True)
def test_beside_a_frozen_matrix_nothing_changes_and_merged_it_is_one(
    variant: str, way: dict[str, Any]
) -> None:
    model = build(variant)
    inputs = inputs_of(model)
    before, chosen = logits(model, inputs), choose(model, ["attention"])
    dense = {place.name: place.matrix() for place in chosen}
    found = wrap_model(model, way, maps=["attention"])
    assert found["matrix error"] == 0 and relative(logits(model, inputs), before) < 1e-13
    modules = shaken(model)
    learned = sum(3 * sum(matrix.shape) + way.get("entries", 0) for matrix in dense.values())
    assert found["wrapped parameters that learn"] == learned
    assert found["parameters"] == found["parameters before"] + learned
    for name, module in modules.items():
        update = module.b @ module.a
        if way is SPARSE:
            for place, value in zip(module.positions, module.values):
                update[place // update.shape[1], place % update.shape[1]] += value
        assert relative(module.matrix(), dense[name] + 32 / 3 * update) < 1e-14
    wrapped = logits(model, inputs)
    assert relative(wrapped, before) > 1e-3
    assert relative(logits(unwrap_model(model), inputs), wrapped) < 1e-11
    assert sum(p.numel() for p in model.parameters()) == found["parameters before"]


@WAYS
def test_only_the_update_has_gradients_and_restarts_find_the_factors(way: dict[str, Any]) -> None:
    model = build("gpt2")
    wrap_model(model, way, maps=["queries", "mlp"])
    modules = shaken(model)
    bases = [module.base.clone() for module in modules.values()]
    model(**inputs_of(model)).logits.square().mean().backward()
    for module, base in zip(modules.values(), bases):
        assert {name for name, p in module.named_parameters() if p.grad is not None} == set(
            dict(module.named_parameters())
        )
        assert not module.base.requires_grad and module.base.grad is None and torch.equal(module.base, base)
        assert not any(name.endswith("base") for name, _ in module.named_parameters())
        # against the gradient of a dense matrix that is put together by hand
        matrix = module.matrix().detach().requires_grad_()
        x = torch.randn(5, module.in_features, dtype=torch.float64)
        module.zero_grad()
        module(x).pow(3).sum().backward()
        torch.nn.functional.linear(x, matrix, module.bias).pow(3).sum().backward()
        assert relative(module.b.grad, module.scale * matrix.grad @ module.a.T) < 1e-12
        assert relative(module.a.grad, module.scale * module.b.T @ matrix.grad) < 1e-12
        if way is SPARSE:
            assert (
                relative(module.values.grad, module.scale * matrix.grad.flatten()[module.positions]) < 1e-12
            )
    assert len(factor_pairs(model, dict(model.named_parameters()))) == len(modules)


def test_in_the_place_of_a_matrix_factors_are_its_best_approximation() -> None:
    for rank in (2, 20):
        model = build("llama")
        dense = {place.name: place.matrix() for place in choose(model, ["mlp"])}
        found = wrap_model(
            model, {"name": "low-rank", "rank": rank, "frozen": False, "alpha": 5}, maps=["mlp"]
        )
        for name, module in places(model):
            u, s, vt = torch.linalg.svd(dense[name])
            assert relative(module.matrix(), u[:, :rank] * s[:rank] @ vt[:rank]) < 1e-13
            assert relative(module.b.T @ module.b, module.a @ module.a.T) < 1e-12  # split evenly
            assert module.base is None
        assert (found["matrix error"] < 1e-13) is (rank == 20)
    model = build("llama")
    with pytest.raises(UserError, match=r"rank 21 are wider .* smaller side is 20"):
        wrap_model(model, {"name": "low-rank", "rank": 21}, maps=["mlp"])


def test_sparse_and_low_rank_in_the_place_of_a_matrix_lose_less() -> None:
    errors = {}
    for support in ("decomposed", "magnitude", "random"):
        model = build("llama")
        way = {"name": "sparse-low-rank", "rank": 4, "density": 0.2, "support": support, "frozen": False}
        errors[support] = wrap_model(model, way, maps=["v_proj"])["matrix error"]
        assert all(len(module.values) == round(0.2 * 24 * 24) for _, module in places(model))
    model = build("llama")
    thin = wrap_model(model, {"name": "low-rank", "rank": 4, "frozen": False}, maps=["v_proj"])[
        "matrix error"
    ]
    assert errors["decomposed"] < errors["magnitude"] < errors["random"] < thin
    full = build("llama")
    way = {"name": "sparse-low-rank", "rank": 1, "density": 1.0, "frozen": False}
    assert wrap_model(full, way, maps=["v_proj"])["matrix error"] < 1e-13


def test_a_planted_decomposition_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(30, 3, generator=generator).double() @ torch.randn(3, 20, generator=generator).double()
    planted = torch.randperm(600, generator=generator)[:25].sort().values
    spikes = torch.zeros(600, dtype=torch.float64)
    spikes[planted] = 3 * (1 - 2 * (torch.arange(25) % 2)).double()
    matrix = low + spikes.view(30, 20)
    found, positions = godec(matrix, 3, 25, generator)
    assert torch.equal(positions, planted) and relative(found, low) < 1e-4
    assert not torch.equal(largest(matrix, 25), planted)  # which the size of the entries alone does not show


def test_a_matrix_without_a_sparse_part_still_gives_that_many_places() -> None:
    """Where the released code's threshold lets fewer entries through, its mask is all ones."""
    exact = torch.ones(6, 5, dtype=torch.float64)
    for matrix in (exact, 0 * exact):
        _, positions = godec(matrix, 2, 4, torch.Generator().manual_seed(0))
        assert len(set(positions.tolist())) == 4
    model = build("bert")
    for entries, words in ((24 * 24, None), (24 * 24 + 1, "577 free entries do not fit a matrix with 576")):
        way = {"name": "sparse-low-rank", "rank": 2, "entries": entries}
        if words is None:
            wrap_model(build("bert"), way, maps=["self.query"])
        else:
            with pytest.raises(UserError, match=words):
                wrap_model(model, way, maps=["self.query"])


def test_supports_are_reproducible_and_differ() -> None:
    def positions(support: str, seed: int) -> list[int]:
        model = build("bert")
        wrap_model(model, {**SPARSE, "support": support}, maps=["self.query"], seed=seed)
        return [int(p) for _, module in places(model) for p in module.positions]

    assert positions("random", 0) == positions("random", 0) != positions("random", 1)
    assert positions("decomposed", 0) == positions("decomposed", 0) != positions("random", 0)
    assert all(len(set(positions(way, 0)[:7])) == 7 for way in ("random", "decomposed", "magnitude"))


@WAYS
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_it_is_stored_trained_and_merged(family: str, way: dict[str, Any], tmp_path: Path) -> None:
    source = stored(tmp_path / "source", family)
    lines = [f"the river {n} ran past the mill and nobody had asked it why\n" for n in range(300)]
    (tmp_path / "text.txt").write_text("".join(lines))
    runner = Runner(tmp_path / "cache")
    out = runner.step("wrap", {"source": str(source), "method": way, "maps": ["attention"]})
    record = json.loads((out / "warmstart.json").read_text())["lineage"]["measured"]
    assert record["matrix error"] == 0 and record["output error"] < 1e-6
    assert resolve(out).form["form"] == way["name"] and inspect(resolve(out))
    trained = runner.step(
        "train",
        {
            "source": str(out),
            "corpus": {"path": str(tmp_path / "text.txt"), "unit": "line"},
            "trainable": [r"\.(a|b|values)$"],
            "max_steps": 6,
            "block_size": 16,
            "learning_rate": 1e-2,
            "eval_max_bytes": 200,
            "eval_points": [],
            "optimizer": {"name": "restarts", "every": 3, "recovery": 0},
        },
    )
    before, after = tensors(out), tensors(trained)
    assert before.keys() == after.keys()
    learned = {name for name in before if not torch.equal(before[name], after[name])}
    assert learned == {name for name in before if name.rpartition(".")[2] in ("a", "b", "values")}
    dense = runner.step("export", {"source": str(trained)})
    assert resolve(dense).form is None and resolve(dense).shapes == resolve(source).shapes
    ids = torch.arange(3, 15).reshape(2, 6)
    more = {"decoder_input_ids": ids} if family == "t5" else {}
    with torch.no_grad():
        merged, ours = (
            resolve(folder).load_model()(input_ids=ids, **more).logits for folder in (dense, trained)
        )
    assert relative(merged, ours) < 1e-5
    lost = json.loads((out / "form.json").read_text())
    first = next(iter(lost["modules"]))
    lost["modules"][first] = {**lost["modules"][first], "rank": 2}
    (out / "form.json").write_text(json.dumps(lost))
    with pytest.raises(UserError):
        resolve(out).load_model()
