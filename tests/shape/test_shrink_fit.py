"""What is multiplied or fitted after a cut: by hand, by the normal equations, by measuring again."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from anatomy_models import build, float64_throughout
from shape_models import logits, made
from shrink_models import READING, calibration_of, reshaping, shrunk, stored

from warmstart.anatomy import anatomy_of_model
from warmstart.shape import refit
from warmstart.shape.consumers import as_consumer, places
from warmstart.shape.refit import refit_outputs, refitted, second_moments
from warmstart.shape.rescale import calibrated_factors

UNITS = {"units": 12}


def small(variant: str) -> dict[str, int]:
    """Half of everything, in sizes that every family can have."""
    return {"hidden": 12, "heads": 2, "units": 9}


def inputs_of_module(model: Any, module: str, batches: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """What a module reads and writes on the calibration text, one row per position."""
    read, wrote = [], []

    def hook(_: Any, args: Any, output: Any) -> None:
        read.append(args[0].flatten(0, -2))
        wrote.append(output.flatten(0, -2))

    handle = model.get_submodule(module).register_forward_hook(hook)
    calibration = calibration_of(model, batches)
    with torch.no_grad(), float64_throughout(model):
        for batch in calibration.batches:
            model(**calibration.objective.inputs(model, dict(batch)))
    handle.remove()
    return torch.cat(read), torch.cat(wrote)


@pytest.mark.parametrize("ridge", [1e-6, 1e-2, 3.0])
def test_ridge_solves_the_normal_equations_and_never_makes_it_worse(ridge: float) -> None:
    draw = torch.Generator().manual_seed(0)
    mixing = torch.randn(9, 9, generator=draw, dtype=torch.float64)
    x = torch.randn(40, 9, generator=draw, dtype=torch.float64) @ mixing
    weight = torch.randn(5, 9, generator=draw, dtype=torch.float64)
    kept = np.array([1, 2, 6, 8])
    cut = weight[:, kept]
    moment = x.T @ x[:, kept]
    strength = ridge * float((x[:, kept] ** 2).sum(0).mean())
    rows = torch.cat([x[:, kept], math.sqrt(strength) * torch.eye(4, dtype=torch.float64)])
    for toward, start in (("cut", cut), ("zero", torch.zeros_like(cut))):
        goal = torch.cat([x @ weight.T, math.sqrt(strength) * start.T])
        direct = torch.linalg.lstsq(rows, goal).solution.T
        found = refitted(weight, moment, kept, ridge=ridge, toward=toward)
        torch.testing.assert_close(found, direct, rtol=1e-8, atol=1e-10)
        if toward == "cut":
            assert error(x, weight, found, kept) <= error(x, weight, cut, kept)
    strong = refitted(weight, moment, kept, ridge=1e12)
    torch.testing.assert_close(strong, cut, rtol=1e-6, atol=1e-8)


def error(x: torch.Tensor, weight: torch.Tensor, fitted: torch.Tensor, kept: np.ndarray) -> float:
    return float((x @ weight.T - x[:, kept] @ fitted.T).square().sum())


def test_ridge_leaves_weights_of_inputs_that_are_never_active() -> None:
    weight = torch.arange(12.0, dtype=torch.float64).reshape(3, 4)
    x = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.5, -1.0, 0.0, 0.0]], dtype=torch.float64)
    for kept in (np.array([0, 1, 3]), np.array([2, 3])):
        found = refitted(weight, x.T @ x[:, kept], kept)
        torch.testing.assert_close(found, weight[:, kept], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", READING)
def test_projections_are_fitted_to_what_the_uncut_ones_wrote(variant: str) -> None:
    model = build(variant)
    _, tensors = stored(model)
    settings = {"importance": "random", "ridge": 1e-2}
    reshape = reshaping(model, small(variant), refit="cut", **settings)
    plain = replace(reshape, made={})
    layers = sum(reshape.new.layers.values())
    cross = reshape.new.layers["decoder"] if "t5" in variant else 0
    assert len(reshape.made) == 2 * layers + cross
    with float64_throughout(model):
        moments = second_moments(calibration_of(model), {})
    assert moments == {}
    for name, fitted in reshape.made.items():
        new, old = reshape.new.tensors[name], reshape.old.tensors[name]
        consumer = as_consumer(old, model)
        kept = places(as_consumer(new, model).reads, consumer.reads, reshape.maps)
        rows = places(as_consumer(new, model).writes, consumer.writes, reshape.maps)
        x, _ = inputs_of_module(model, consumer.module)
        weight = tensors[name].T if consumer.transposed else tensors[name]
        fitted = fitted.T if consumer.transposed else fitted
        inner = x[:, kept].T @ x[:, kept]
        strength = 1e-2 * inner.diagonal().mean() * torch.eye(len(kept), dtype=torch.float64)
        direct = (weight @ x.T @ x[:, kept] + weight[:, kept] @ strength) @ torch.linalg.inv(inner + strength)
        torch.testing.assert_close(fitted, direct[rows], rtol=1e-7, atol=1e-9)
        cut = plain.tensor(name, tensors.__getitem__)
        assert cut.shape == reshape.made[name].shape and not torch.equal(cut, reshape.made[name])
        assert error(x, weight[rows], fitted, kept) < error(x, weight[rows], weight[rows][:, kept], kept)


def test_few_moments_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("llama-gqa-tied")
    _, tensors = stored(model)
    reshape = reshaping(model, small("llama-gqa-tied"), importance="random", text=False)
    calls = []

    def counted(calibration: Any, kept: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
        calls.append(list(kept))
        return second_moments(calibration, kept)

    monkeypatch.setattr(refit, "second_moments", counted)
    found = []
    for most in (refit._MOST, 8 * (24 * 12 + 20 * 9), 1):
        monkeypatch.setattr(refit, "_MOST", most)
        with float64_throughout(model):
            found.append(refit_outputs(reshape, calibration_of(model), tensors.__getitem__))
    assert [len(kept) for kept in calls] == [4, 2, 2, 1, 1, 1, 1]
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.equal(other[name], found[0][name]) for name in other)


def test_a_refit_is_nearer_to_the_original() -> None:
    model = build("gpt2-inner-untied")
    with torch.no_grad():  # units that repeat each other, so that what goes can be made up for
        for layer in range(2):
            mlp = model.transformer.h[layer].mlp
            mlp.c_fc.weight[:, 10:] = mlp.c_fc.weight[:, :10]
            mlp.c_fc.bias[10:] = mlp.c_fc.bias[:10]
    calibration = calibration_of(model)
    batch = {k: v for k, v in calibration.batches[0].items() if k != "labels"}
    before = logits(model, batch)
    distances = {}
    for fit in ("none", "cut", "zero"):
        other, _ = shrunk(model, {"units": 10}, importance="first", rescale="none", refit=fit, ridge=1e-9)
        distances[fit] = float((logits(other, batch) - before).abs().max())
    assert distances["cut"] < 1e-5 > distances["zero"] and distances["none"] > 0.1


@pytest.mark.parametrize("variant", ["llama", "llama-gqa-tied", "gpt2", "t5", "bert"])
def test_roots_of_sizes_by_hand(variant: str) -> None:
    """Every weight that reads a cut axis, once per axis; the gain of the last norm for a tied head."""
    model = build(variant)
    _, tensors = stored(model)
    to = small(variant)
    scaled = reshaping(model, to, importance="first", text=False)
    plain = reshaping(model, to, importance="first", rescale="none", text=False)
    anatomy = scaled.old
    last = {f"{anatomy.last_norm}.weight", f"{anatomy.last_norm}.bias"}
    for name, spec in scaled.new.tensors.items():
        if spec.tied_to or name not in tensors or (variant == "t5" and name in last):
            continue
        expected = 1.0
        for now, before in zip(spec.dims, anatomy.tensors[name].dims):
            if now.role == "i":
                expected *= math.sqrt(before.size / now.size)
        if name in last and anatomy.tied:
            expected = math.sqrt(2)
        found, cut = scaled.tensor(name, tensors.__getitem__), plain.tensor(name, tensors.__getitem__)
        torch.testing.assert_close(found, cut * expected, rtol=1e-12, atol=1e-14)
    if variant == "t5":  # its head is multiplied by d^-1/2 of the smaller d
        name = f"{anatomy.last_norm}.weight"
        gain = tensors[name][:12]
        torch.testing.assert_close(scaled.tensor(name, tensors.__getitem__), gain)
        torch.testing.assert_close(plain.tensor(name, tensors.__getitem__), gain * math.sqrt(0.5))


@pytest.mark.parametrize("variant", READING)
def test_calibrated_modules_write_with_the_old_spread(variant: str) -> None:
    model = build(variant)
    settings = {"importance": "activation", "batches": 1}
    other, reshape = shrunk(model, small(variant), rescale="calibrated", **settings)
    plain, _ = shrunk(model, small(variant), rescale="sqrt", **settings)
    ratios, before_it = [], []
    for name, spec in anatomy_of_model(other).tensors.items():
        now, old = as_consumer(spec, other), as_consumer(reshape.old.tensors[name], model)
        if now is None or old is None or now.reads.size == old.reads.size:
            continue
        kept = places(now.writes, old.writes, reshape.maps)
        goal = inputs_of_module(model, old.module, 1)[1][:, kept].var(0, correction=0).mean().sqrt()
        for which, found in ((other, ratios), (plain, before_it)):
            spread = inputs_of_module(which, now.module, 1)[1].var(0, correction=0).mean().sqrt()
            found.append(float(spread / goal))
    assert len(ratios) > 8
    off, off_before = (max(abs(math.log(r)) for r in found) for found in (ratios, before_it))
    assert off < 1e-6 < 0.1 < off_before


def test_over_several_batches_factors_are_averaged() -> None:
    model = build("llama-gqa-tied")
    _, tensors = stored(model)
    reshape = reshaping(model, small("llama-gqa-tied"), importance="first", text=False)
    both = calibration_of(model)
    found = []
    with float64_throughout(model):
        for batches in (both.batches, both.batches[:1], both.batches[1:]):
            part = replace(both, batches=batches)
            found.append(calibrated_factors(reshape, part, tensors.__getitem__))
    for name, factors in found[0].items():
        mean = math.sqrt(found[1][name][None] * found[2][name][None])
        assert factors[None] == pytest.approx(mean, rel=1e-12)


def test_calibration_finds_what_another_factor_undid() -> None:
    model = build("llama")
    _, tensors = stored(model)
    reshape = reshaping(model, UNITS, importance="first", text=False)
    name = "model.layers.1.mlp.down_proj.weight"
    halved = replace(reshape, factors={name: {None: 0.5}})
    found = []
    for surgery in (reshape, halved):
        with float64_throughout(model):
            factors = calibrated_factors(surgery, calibration_of(model), tensors.__getitem__)
        found.append(made(replace(surgery, factors=factors), model).state_dict()[name])
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)
