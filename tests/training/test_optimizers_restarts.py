"""Restarts: the same product from better factors, cleared moments, a dip of the rate, exact resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optimizer_twins as twins
import pytest
import torch
import training_tiny as tiny
from torch import Tensor, nn

from warmstart.foundation.errors import UserError
from warmstart.training import Interrupted
from warmstart.training.engine import Engine
from warmstart.training.optimizers.restarts import rebalance
from warmstart.training.parameters import factor_pairs, make_optimizer

pytestmark = pytest.mark.usefixtures("one_thread")


class Factorised(nn.Module):
    """A linear layer whose weight is B A."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        b, a = torch.empty(linear.out_features, rank), torch.empty(rank, linear.in_features)
        self.b, self.a = nn.Parameter(nn.init.normal_(b)), nn.Parameter(nn.init.normal_(a, std=0.01))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.a.T @ self.b.T


def factors(m: int, r: int, n: int) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(0)
    return (
        50 * torch.randn(m, r, generator=drawn, dtype=torch.float64),
        torch.randn(r, n, generator=drawn, dtype=torch.float64),
    )


@pytest.mark.parametrize(("m", "r", "n"), [(7, 3, 11), (11, 3, 7), (5, 5, 5), (6, 1, 4), (3, 6, 8)])
def test_rebalanced_factors_have_the_same_product_and_equal_gram_matrices(m: int, r: int, n: int) -> None:
    b, a = factors(m, r, n)
    new_b, new_a = rebalance(b, a)
    assert new_b.shape == b.shape and new_a.shape == a.shape
    torch.testing.assert_close(new_b @ new_a, b @ a, rtol=0, atol=1e-12 * float((b @ a).abs().max()))
    values = torch.zeros(r, dtype=torch.float64)
    values[: min(m, r, n)] = torch.linalg.svdvals(b @ a)[:r]
    for gram in (new_b.T @ new_b, new_a @ new_a.T):
        torch.testing.assert_close(gram, values.diag(), rtol=0, atol=1e-11 * float(values[0]))
    assert (b.T @ b - a @ a.T).abs().max() > 1  # they were not balanced before


def test_float32_factors_keep_their_product_to_rounding() -> None:
    b, a = (x.float() for x in factors(40, 8, 60))
    new_b, new_a = rebalance(b, a)
    assert new_b.dtype == new_a.dtype == torch.float32
    assert ((new_b @ new_a) - b @ a).abs().max() < 1e-5 * (b @ a).abs().max()
    assert all(x.dtype == torch.bfloat16 for x in rebalance(b.bfloat16(), a.bfloat16()))


def test_a_product_of_zero_keeps_its_factors() -> None:
    b, a = factors(4, 2, 5)
    assert all(torch.equal(x, y) for x, y in zip(rebalance(b * 0, a), (b * 0, a)))


def test_restarts_are_optimizers_built_anew_at_dipped_rates() -> None:
    """Bitwise: after each third step a new AdamW, whose first two rates are a tenth and 55 % of the given."""
    named, other = twins.weights(), twins.weights()
    given = twins.gradients(named, 10)
    settings = {"name": "restarts", "every": 3, "dip": 0.1, "recovery": 2}
    rates: list[float] = []
    optimizer = twins.make(named, settings)
    twins.run(named, optimizer, given, lambda _: rates.append(optimizer.param_groups[0]["lr"]))
    assert set(rates) == {twins.RATE}, "the rate that the loop has set must be there again"
    for begin in range(0, 10, 3):
        fresh = twins.make(other, "adamw")
        for step in range(begin, min(begin + 3, 10)):
            factor = {0: 0.1, 1: 0.1 + 0.9 / 2}.get(step - begin, 1.0) if begin else 1.0
            for group in fresh.param_groups:
                group["lr"] = twins.RATE * factor
            twins.run(other, fresh, given[step : step + 1])
    assert all(torch.equal(p, other[name]) for name, p in named.items())


def test_factors_take_the_path_of_a_full_decomposition() -> None:
    """Fitting B A to a matrix; the twin decomposes the whole product at each restart."""
    goal = torch.randn(6, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    settings = {"name": "restarts", "every": 4, "recovery": 0}

    def pair() -> dict[str, nn.Parameter]:
        b, a = factors(6, 2, 8)
        return {"layers.0.b": nn.Parameter(0.05 * b), "layers.0.a": nn.Parameter(a)}

    def step(named: dict[str, nn.Parameter], optimizer: Any) -> Tensor:
        b, a = named.values()
        b.grad, a.grad = torch.autograd.grad((b @ a - goal).square().sum(), (b, a))
        optimizer.step()
        return (b @ a).detach()

    named, other = pair(), pair()
    optimizer = twins.make(named, settings, factors=[("layers.0.b", "layers.0.a")])
    plain = twins.make(other, "adamw")
    unbalanced = twins.make(third := pair(), {**settings, "rebalance": False}, factors=[tuple(third)])
    for number in range(1, 14):
        ours, written, without = step(named, optimizer), step(other, plain), step(third, unbalanced)
        if number % 4 == 0:
            u, s, vt = np.linalg.svd(written.numpy())
            b, a = other.values()
            b.data = torch.from_numpy(u[:, :2] * np.sqrt(s[:2]))
            a.data = torch.from_numpy(np.sqrt(s[:2])[:, None] * vt[:2])
            plain = twins.make(other, "adamw")
        torch.testing.assert_close(ours, written, rtol=0, atol=1e-10)
    assert (ours - without).abs().max() > 1e-3, "rebalancing must matter"


def factorised_llama() -> Any:
    model = tiny.llama()
    for layer in model.model.layers:
        layer.mlp.down_proj = Factorised(layer.mlp.down_proj, 6)
    return model


def test_pairs_are_found_by_form_and_only_where_both_learn() -> None:
    model = factorised_llama()
    model.model.layers[1].mlp.down_proj.a.requires_grad_(False)
    model.a, model.b = nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(4, 4))  # do not multiply
    found = factor_pairs(model, dict(model.named_parameters()))
    assert found == [("model.layers.0.mlp.down_proj.b", "model.layers.0.mlp.down_proj.a")]


def test_a_run_with_factors_is_balanced_and_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"optimizer": {"name": "restarts", "every": 4, "recovery": 3}, "save_steps": 5}
    model = factorised_llama()
    whole = tiny.run(tmp_path / "whole", model=model, **options)
    for layer in model.model.layers:  # the twelfth step has restarted
        b, a = layer.mlp.down_proj.b.detach(), layer.mlp.down_proj.a.detach()
        torch.testing.assert_close(b.T @ b, a @ a.T, rtol=0, atol=1e-4)
    kept = tiny.weights(whole.checkpoint, "optimizer.safetensors")
    assert [int(v) for key, v in kept.items() if key.startswith("updates/")] == [12]
    assert not any(v.any() for key, v in kept.items() if key.startswith("exp_avg"))
    stop_before(monkeypatch, 7)
    with pytest.raises(Interrupted):
        tiny.run(tmp_path / "part", model=factorised_llama(), **options)
    monkeypatch.undo()
    rest = tiny.run(tmp_path / "part", model=factorised_llama(), **options)
    assert tiny.same_bits(rest.checkpoint, whole.checkpoint) and rest.curve.final == whole.curve.final


def stop_before(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ctrl-C in step `number`: what counts is the last checkpoint."""
    original, seen = Engine.step, [0]

    def step(self: Engine, *given: Any, **more: Any) -> Any:
        seen[0] += 1
        if seen[0] == number:
            raise KeyboardInterrupt
        return original(self, *given, **more)

    monkeypatch.setattr(Engine, "step", step)


def test_factors_that_are_sharded_are_refused() -> None:
    model = factorised_llama()
    named = dict(model.named_parameters())
    options = tiny.settings(optimizer="restarts")
    make_optimizer(model, named, options)
    named["model.layers.0.mlp.down_proj.b"].device_mesh = "two processes"
    with pytest.raises(UserError, match="'restarts' needs whole matrices"):
        make_optimizer(model, named, options)
    make_optimizer(model, named, tiny.settings(optimizer={"name": "restarts", "rebalance": False}))
