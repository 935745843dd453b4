"""Matrix product operators: exact where nothing is cut or shared, counted by the formula, stored once."""

from __future__ import annotations

import dataclasses
import json
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from anatomy_models import build, inputs_of, variants
from shape_files import stored, tensors
from shape_models import logits

from warmstart.anatomy import anatomy_of_model
from warmstart.checkpoint import Lineage, inspect, resolve, save_checkpoint
from warmstart.checkpoint.forms._wrapped import Wrapped, places
from warmstart.checkpoint.forms.mpo import contract
from warmstart.foundation.errors import UserError
from warmstart.recipes.operations.wrap import WrapSettings
from warmstart.recipes.runner import Runner
from warmstart.recipes.versions import later_versions
from warmstart.shape.wrap import wraps
from warmstart.shape.wrap._chain import bonds, core_sizes, decompose, factors
from warmstart.shape.wrap._choose import choose
from warmstart.shape.wrap._model import unwrap_model, wrap_model
from warmstart.training.parameters import factor_pairs

EXACT = {"name": "mpo", "share": "none", "adapter_rank": 0}
FILES = ("llama", "gpt2", "gpt_neox", "bert", "roberta", "t5")


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


def by_hand(cores: list[torch.Tensor]) -> torch.Tensor:
    """Entry by entry: the product of one slice of every core."""
    outputs, inputs = ([core.shape[k] for core in cores] for k in (1, 2))
    whole = torch.empty(prod(outputs), prod(inputs), dtype=cores[0].dtype)
    for row, i in enumerate(torch.cartesian_prod(*(torch.arange(n) for n in outputs))):
        for column, j in enumerate(torch.cartesian_prod(*(torch.arange(n) for n in inputs))):
            value = torch.eye(1, dtype=cores[0].dtype)
            for core, a, b in zip(cores, i, j):
                value = value @ core[:, a, b]
            whole[row, column] = value
    return whole


def test_a_chain_is_its_matrix_and_its_sizes_are_the_formulas() -> None:
    torch.manual_seed(0)
    outputs, inputs = [2, 3, 1, 2, 2], [1, 2, 3, 3, 1]
    matrix = torch.randn(24, 18, dtype=torch.float64)
    cores = decompose(matrix, outputs, inputs)
    assert relative(contract(cores), matrix) < 1e-14
    assert relative(by_hand(cores), matrix) < 1e-14
    assert [core.numel() for core in cores] == core_sizes(outputs, inputs)
    assert [core.shape[3] for core in cores[:-1]] == bonds(outputs, inputs) == [2, 12, 12, 2]
    for core in cores[:2]:  # the scale lies in the centre
        assert relative(core.flatten(0, 2).T @ core.flatten(0, 2), torch.eye(core.shape[3]).double()) < 1e-14
    for core in cores[3:]:
        assert relative(core.flatten(1) @ core.flatten(1).T, torch.eye(core.shape[0]).double()) < 1e-14
    rough = decompose(matrix, outputs, inputs, 4)
    assert [core.shape[3] for core in rough[:-1]] == [2, 4, 4, 2]
    assert relative(contract(rough), matrix) > 0.05 and relative(contract(rough), by_hand(rough)) < 1e-14
    with pytest.raises(UserError, match="2·3 by 4 is not 24 by 18"):
        decompose(matrix, [2, 3], [4])


def test_a_chain_of_low_bonds_is_found_again() -> None:
    torch.manual_seed(1)
    shapes = [(1, 2, 3, 2), (2, 2, 2, 2), (2, 3, 2, 2), (2, 2, 2, 2), (2, 2, 2, 1)]
    matrix = contract([torch.randn(shape, dtype=torch.float64) for shape in shapes])
    found = decompose(matrix, [2, 2, 3, 2, 2], [3, 2, 2, 2, 2], 2)
    assert sum(core.numel() for core in found) < matrix.numel() / 10
    assert relative(contract(found), matrix) < 1e-12


def test_factors_are_those_of_the_paper() -> None:
    assert factors(768, 5) == [3, 4, 4, 4, 4] and factors(3072, 5) == [4, 4, 8, 6, 4]
    assert factors(1024, 5) == [4] * 5 and factors(23, 5) == [1, 1, 23, 1, 1] and factors(1, 3) == [1, 1, 1]
    for size in range(1, 200):
        assert prod(factors(size, 5)) == size
    square = core_sizes(factors(768, 5), factors(768, 5)[::-1])
    wide = core_sizes(factors(3072, 5), factors(768, 5)[::-1])
    assert (square[2], sum(square) - square[2]) == (589_824, 74_016)
    assert (wide[2], sum(wide) - wide[2]) == (2_359_296, 148_880)


@variants(text=True)
def test_untruncated_and_unshared_every_family_computes_the_same(variant: str) -> None:
    model = build(variant)
    inputs, dense = inputs_of(model), {name: m for name, m in model.named_modules() if hasattr(m, "weight")}
    before, specs = logits(model, inputs), anatomy_of_model(model)
    found = wrap_model(model, EXACT)
    assert found["matrix error"] < 1e-14 and relative(logits(model, inputs), before) < 1e-13
    for name, module in places(model):  # also for whoever reads a weight in place of calling the map
        assert relative(module.weight, dense[name].weight) < 1e-13
    assert anatomy_of_model(model).sizes == specs.sizes
    count = sum(p.numel() for p in model.parameters())
    assert found["parameters"] == count > found["parameters before"]
    unwrap_model(model)
    assert not list(places(model)) and relative(logits(model, inputs), before) < 1e-13
    assert sum(p.numel() for p in model.parameters()) == found["parameters before"]


@pytest.mark.parametrize("variant", ["gpt2", "llama-gqa-tied", "bert"])
def test_layers_share_one_centre_and_the_count_is_the_formula(variant: str) -> None:
    model = build(variant)
    before = sum(p.numel() for p in model.parameters())
    context = choose(model, ["all"])
    kinds: dict[str, list[Any]] = {}
    for place in context:
        kinds.setdefault(place.kind, []).append(place.matrix())
    found = wrap_model(model, {"name": "mpo", "adapter_rank": 2})
    expected = before
    for matrices in kinds.values():
        (outputs, inputs), layers = matrices[0].shape, len(matrices)
        sizes = core_sizes(factors(outputs, 5), factors(inputs, 5)[::-1])
        expected += sizes[2] + layers * (sum(sizes) - sizes[2] + 2 * (outputs + inputs) - outputs * inputs)
    assert found["parameters"] == expected == sum(p.numel() for p in model.parameters())
    modules = dict(places(model))
    by_kind = {place.kind: [modules[p.name] for p in context if p.kind == place.kind] for place in context}
    assert all(len(shared) == 2 for shared in by_kind.values())
    for first, second in by_kind.values():
        same = [a is b for a, b in zip(first.cores, second.cores)]
        assert same == [False, False, True, False, False] and first.b is not second.b
    assert len({id(shared[0].cores[2]) for shared in by_kind.values()}) == len(by_kind)


def test_the_mean_is_shared_and_adapters_take_up_what_is_lost() -> None:
    model = build("llama")
    dense = {place.name: place.matrix() for place in choose(model, ["v_proj"])}
    mean = sum(dense.values()) / len(dense)
    errors = []
    for rank in (0, 3, 24):
        wrapped = build("llama")
        errors.append(wrap_model(wrapped, {"name": "mpo", "adapter_rank": rank}, maps=["v_proj"]))
        for name, module in places(wrapped):
            u, s, vt = torch.linalg.svd(dense[name] - mean)
            best = mean + (u[:, :rank] * s[:rank]) @ vt[:rank]
            assert relative(module.matrix(), best) < 1e-13
    first, second, last = (found["matrix error"] for found in errors)
    assert first > second > 0.01 and last < 1e-14
    size = sum(float(matrix.square().sum()) for matrix in dense.values())
    lost = sum(float((matrix - mean).square().sum()) for matrix in dense.values())
    assert first == pytest.approx((lost / size) ** 0.5)
    assert errors[1]["output error"] > 0.01 and errors[2]["output error"] < 1e-6


def test_equal_layers_are_reproduced_and_their_adapters_can_learn() -> None:
    model = build("gpt2")
    inputs = inputs_of(model)
    for first, second in zip(model.transformer.h[0].parameters(), model.transformer.h[1].parameters()):
        second.data.copy_(first)
    before = logits(model, inputs)
    for more in ({}, {"share": "all"}, {"adapter": "zero"}, {"donor": 1}, {"truncate": 10**6}):
        wrapped = build("gpt2")
        wrapped.load_state_dict(model.state_dict())
        assert wrap_model(wrapped, {"name": "mpo", **more})["matrix error"] < 1e-14
        assert relative(logits(wrapped, inputs), before) < 1e-13
        logits_now = wrapped(**inputs).logits
        logits_now.square().mean().backward()
        for _, module in places(wrapped):
            assert isinstance(module, Wrapped)
            if module.b is not None:
                assert not module.b.any() and module.b.grad.any() and module.a.any()
    assert len(factor_pairs(wrapped, dict(wrapped.named_parameters()))) == 8  # found by `restarts`


def test_settings_choose_donor_runs_and_scale() -> None:
    def wrapped(variant: str, **more: Any) -> Any:
        model = build(variant)
        wrap_model(model, {"name": "mpo", "adapter_rank": 0, **more}, maps=["self.value"])
        return [module for _, module in places(model)]

    dense = [place.matrix() for place in choose(build("bert"), ["self.value"])]
    for donor in (0, -1):
        assert all(relative(m.matrix(), dense[donor]) < 1e-13 for m in wrapped("bert", donor=donor))
    halves = wrapped("bert", central_cores=2)
    assert halves[0].cores[2] is not halves[1].cores[2]
    assert all(relative(m.matrix(), matrix) < 1e-13 for m, matrix in zip(halves, dense))
    shared = wrapped("bert", share="all")
    assert all(a is b for a, b in zip(shared[0].cores, shared[1].cores))
    scaled = wrapped("bert", donor=0, depth_scale=True)
    assert relative(scaled[1].matrix(), dense[0] * 4**-0.25) < 1e-13
    assert wrapped("bert", truncate=2)[0].ranks == [2, 2, 2, 2]
    own = wrapped("bert", factors={24: [6, 1, 4, 1, 1]})[0]
    assert own.output_factors == [6, 1, 4, 1, 1] and own.input_factors == [1, 1, 4, 1, 6]
    for more, words in [
        ({"cores": 4}, "odd"),
        ({"factors": {24: [6, 4]}}, "24 needs 5 factors"),
        ({"factors": {24: [6, 1, 1, 1, 1]}}, "the factors of 24 must give 24"),
        ({"donor": 2}, "there is no layer 2 among 2"),
    ]:
        with pytest.raises(UserError, match=words):
            wrapped("bert", **more)


def test_maps_are_chosen_by_the_familys_table() -> None:
    def names(variant: str, *maps: str) -> set[str]:
        return {place.name.split(".1.", 1)[1] for place in choose(build(variant), maps) if place.layer}

    assert names("llama", "queries") == {"self_attn.q_proj"}
    assert names("llama", "queries", "v_proj") == {"self_attn.q_proj", "self_attn.v_proj"}
    assert names("llama", "outputs") == {"self_attn.o_proj", "mlp.down_proj"}
    assert names("llama", "mlp") == {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}
    assert names("gpt2", "queries") == {"attn.c_attn"} and len(names("gpt2", "all")) == 4
    assert names("qwen3_moe-biases-dense-tied", "mlp") == {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}
    kinds = {place.kind for place in choose(build("t5"), ["q"])}
    assert len(kinds) == 3 and all(kind.endswith("Attention.q.weight") for kind in kinds)
    with pytest.raises(UserError, match="did you mean 'v_proj'"):
        choose(build("llama"), ["v_prj"])
    with pytest.raises(UserError, match="no linear maps 'proj'"):
        choose(build("llama"), ["proj"])


@pytest.mark.parametrize("family", FILES)
def test_it_is_stored_and_opened_like_any_checkpoint(family: str, tmp_path: Path) -> None:
    source = stored(tmp_path / "source", family)
    runner = Runner(tmp_path / "cache")
    out = runner.step("wrap", {"source": str(source), "method": {"name": "mpo", "adapter_rank": 2}})
    made = resolve(out)
    assert made.form is not None and made.form["form"] == "mpo"
    model = made.load_model()
    held = tensors(out)
    stored_count = sum(t.numel() for t in held.values())
    assert stored_count == sum(p.numel() for p in model.parameters())  # what is shared is stored once
    assert sum(name.endswith("cores.2") for name in held) == len(made.form["shared"])
    record = json.loads((out / "warmstart.json").read_text())["lineage"]["measured"]
    assert record["parameters"] == stored_count and record["matrix error"] > 0
    direct = resolve(source).load_model()
    found = wrap_model(direct, {"name": "mpo", "adapter_rank": 2})
    assert found == pytest.approx(record, rel=1e-4)
    for a, b in zip(direct.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert "warmstart export" in (out / "README.md").read_text() and inspect(made)
    dense = runner.step("export", {"source": str(out)})
    assert resolve(dense).form is None and resolve(dense).shapes == resolve(source).shapes
    ids = torch.arange(3, 15).reshape(2, 6)
    more = {"decoder_input_ids": ids} if family == "t5" else {}
    with torch.no_grad():
        plain, ours = (m(input_ids=ids, **more).logits for m in (resolve(dense).load_model(), model))
    assert relative(plain, ours) < 1e-5
    with pytest.raises(UserError, match="is of the form mpo already"):
        runner.step("wrap", {"source": str(out), "method": "mpo"})
    with pytest.raises(UserError, match="an ordinary checkpoint"):
        runner.step("export", {"source": str(source)})
    with pytest.raises(UserError, match="one form, and the model is factorised and mpo"):
        runner.step("factorise", {"source": str(out), "rank": 2})
    with pytest.raises(UserError, match="make it an ordinary one first"):
        runner.step("grow", {"source": str(out), "to": {"num_hidden_layers": 3}})


def test_a_broken_note_is_one_sentence(tmp_path: Path) -> None:
    model = build("llama").float()
    wrap_model(model, "mpo")
    save_checkpoint(tmp_path / "out", model, None, lineage=Lineage.of("test"))
    file = tmp_path / "out" / "form.json"
    note = json.loads(file.read_text())
    for change in (
        {"modules": {"model.nowhere": next(iter(note["modules"].values()))}},
        {"shared": []},
        {"modules": {name: {**sizes, "ranks": [1, 1, 1, 1]} for name, sizes in note["modules"].items()}},
        {"modules": {name: {} for name in note["modules"]}},
    ):
        file.write_text(json.dumps({**note, **change}))
        with pytest.raises(UserError):
            resolve(tmp_path / "out").load_model()


def test_training_goes_through_the_step_and_keeps_what_is_shared(tmp_path: Path) -> None:
    source = stored(tmp_path / "source", "gpt2")
    lines = [f"the river {n} ran past the mill and nobody had asked it why\n" for n in range(300)]
    (tmp_path / "text.txt").write_text("".join(lines))
    runner = Runner(tmp_path / "cache")
    wrapped = runner.step("wrap", {"source": str(source), "method": "mpo"})
    trained = runner.step(
        "train",
        {
            "source": str(wrapped),
            "corpus": {"path": str(tmp_path / "text.txt"), "unit": "line"},
            "max_steps": 8,
            "block_size": 8,
            "learning_rate": 1e-2,
            "eval_max_bytes": 200,
            "eval_points": [],
            "optimizer": {"name": "restarts", "every": 4, "recovery": 0},
        },
    )
    before, after = resolve(wrapped).load_model(), resolve(trained).load_model()
    assert resolve(trained).form == resolve(wrapped).form
    for (name, old), (_, new) in zip(places(before), places(after), strict=True):
        assert all(not torch.equal(a, b) for a, b in zip(old.cores, new.cores)), name
        assert not torch.equal(old.b, new.b)
    curve = json.loads((trained / "training.json").read_text())
    assert curve["points"][-1]["bpb"] < curve["points"][0]["bpb"]
    assert {id(m.cores[2]) for n, m in places(after) if n.endswith("c_fc")} == {
        id(after.transformer.h[0].mlp.c_fc.cores[2])
    }


def test_a_new_version_of_a_way_reruns_the_steps_that_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wraps._entries, "mpo", dataclasses.replace(wraps.get("mpo"), version=3))
    for method in ("mpo", {"name": "mpo", "cores": 3}):
        assert later_versions(WrapSettings(source="a", method=method)) == {"wrap mpo": 3}
    assert later_versions(WrapSettings(source="a", method="low-rank")) == {}
