"""Each update of the memory-lean optimizers is the formula, in float64, through renewals and the limiter."""

from __future__ import annotations

from typing import Any

import numpy as np
import optimizer_twins as twins
import pytest
import torch
from optimizer_twins import RATE, Twin
from torch import nn

from warmstart.training.optimizers._lean import MatrixUpdate, scaling

STEPS, GAP = 8, 3
# growing, then a jump, a fall and a jump again: the limiter acts and lets pass
SIZES = [1.0, 1.5, 1.5, 9.0, 0.5, 0.5, 4.0, 4.0]
CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"name": "galore", "rank": 3}, {"scale": 0.25}),
    ({"name": "galore", "rank": 1, "scale": 2.0}, {"scale": 2.0}),
    ({"name": "galore", "rank": 99}, {"scale": 0.25}),
    ({"name": "fira", "rank": 2}, {"scale": 0.25, "growth": 1.01}),
    ({"name": "fira", "rank": 2, "growth_limit": None}, {"scale": 0.25, "growth": None}),
    (
        {"name": "fira", "rank": 2, "residual": "released", "growth_limit": 1.5},
        {"scale": 0.25, "growth": 1.5, "residual": "released"},
    ),
    ({"name": "apollo", "rank": 2}, {"scale": 1.0, "growth": 1.01, "scale_type": "channel"}),
    (
        {"name": "apollo", "rank": 3, "scale": 4.0, "growth_limit": None},
        {"scale": 4.0, "growth": None, "scale_type": "channel"},
    ),
    (
        {"name": "apollo", "rank": 2, "limited": "released"},
        {"scale": 1.0, "growth": 1.01, "scale_type": "channel", "limited": "released"},
    ),
    ({"name": "apollo-mini"}, {"rank": 1, "scale": 128.0, "growth": 1.01, "scale_type": "tensor"}),
]


@pytest.mark.parametrize(
    ("settings", "formula"), CASES, ids=["-".join(map(str, s.values())) for s, _ in CASES]
)
def test_updates_are_the_formula(settings: dict[str, Any], formula: dict[str, Any]) -> None:
    named = twins.weights()
    optimizer = twins.make(named, {**settings, "update_proj_gap": GAP})
    options = {"rank": settings.get("rank"), "gap": GAP, **formula}
    written = {
        name: Twin(p.detach().numpy(), name, settings["name"], options)
        for name, p in named.items()
        if name.startswith("layers.")
    }
    given = twins.gradients(named, STEPS, SIZES)

    def check(step: int) -> None:
        for name, twin in written.items():
            twin.step(given[step][name])
            np.testing.assert_allclose(named[name].detach().numpy(), twin.weight, rtol=0, atol=1e-10)

    run_with_rest_by_torch(named, optimizer, given, check)
    acts = settings["name"] != "galore" and formula["growth"] is not None
    assert all((0 < twin.limits < STEPS - 1) == acts for twin in written.values()), (
        "the limiter is not tested"
    )


def run_with_rest_by_torch(
    named: dict[str, nn.Parameter], optimizer: Any, given: list[dict[str, np.ndarray]], check: Any
) -> None:
    """Run, and see that everything but the matrices gets torch's AdamW, bit for bit."""
    rest = {n: nn.Parameter(p.detach().clone()) for n, p in named.items() if not n.startswith("layers.")}
    plain = torch.optim.AdamW(
        rest.values(), lr=RATE, betas=twins.BETAS, eps=twins.EPSILON, weight_decay=0, fused=True
    )
    twins.run(named, optimizer, given, check)
    twins.run(rest, plain, given)
    assert rest and all(torch.equal(p, named[name]) for name, p in rest.items())


def test_full_rank_galore_is_adam_in_the_rotated_basis() -> None:
    """Until P changes: W = P W', where Adam with the same decay acts on W' with gradients P^T G."""
    named = {name: p for name, p in twins.weights().items() if name.startswith("layers.")}
    given = twins.gradients(named, STEPS)
    rotated, bases = {}, {}
    for name, parameter in named.items():
        tall = parameter.shape[0] >= parameter.shape[1]
        first = given[0][name].T if tall else given[0][name]
        bases[name] = np.linalg.svd(first)[0]
        start = parameter.detach().numpy().T if tall else parameter.detach().numpy()
        rotated[name] = nn.Parameter(torch.from_numpy(bases[name].T @ start))
    turned = [
        {n: bases[n].T @ (g.T if named[n].shape[0] >= named[n].shape[1] else g) for n, g in step.items()}
        for step in given
    ]
    plain = torch.optim.AdamW(
        rotated.values(), lr=RATE, betas=twins.BETAS, eps=twins.EPSILON, weight_decay=twins.DECAY
    )
    apart = torch.optim.AdamW(
        straight := [nn.Parameter(p.detach().clone()) for p in named.values()],
        lr=RATE, betas=twins.BETAS, eps=twins.EPSILON, weight_decay=twins.DECAY,
    )  # fmt: skip
    twins.run(named, twins.make(named, {"name": "galore", "rank": 10, "scale": 1.0}), given)
    twins.run(rotated, plain, turned)
    twins.run(dict(zip(named, straight)), apart, given)
    for (name, parameter), other in zip(named.items(), straight):
        back = bases[name] @ rotated[name].detach().numpy()
        tall = parameter.shape[0] >= parameter.shape[1]
        np.testing.assert_allclose(parameter.detach().numpy(), back.T if tall else back, rtol=0, atol=1e-10)
        assert (parameter - other).abs().max() > 0.01, "it must not be Adam in the basis of the weight"


def update_of(gradient: torch.Tensor, taken: int = 0, name: str = "w", seed: int = 0) -> MatrixUpdate:
    return MatrixUpdate(gradient, {}, taken, name, seed, twins.BETAS, twins.EPSILON)


def test_random_projections_are_normal_and_depend_on_run_weight_and_time() -> None:
    gradient = torch.zeros(400, 900)
    basis = update_of(gradient).random_basis(100, 5)
    assert basis.shape == (400, 100) and basis.mean().abs() < 3e-3
    assert basis.var() * 100 == pytest.approx(1, abs=0.03)
    assert torch.equal(basis, update_of(gradient, taken=4).random_basis(100, 5))
    for other in (update_of(gradient, 5), update_of(gradient, name="v"), update_of(gradient, seed=1)):
        assert (
            abs(torch.corrcoef(torch.stack([basis.flatten(), other.random_basis(100, 5).flatten()]))[0, 1])
            < 0.02
        )


def test_zero_gradients_move_nothing_and_set_no_limit() -> None:
    """A first gradient of zero leaves the steps after it free; in released codes it holds them near zero."""
    for name in ("galore", "fira", "apollo", "apollo-mini"):
        named = twins.weights()
        before = {n: p.detach().clone() for n, p in named.items()}
        optimizer = twins.make(named, {"name": name, "update_proj_gap": 2})
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
        zeros = [{n: 0 * g for n, g in twins.gradients(named, 1)[0].items()}]
        twins.run(named, optimizer, zeros)
        assert all(torch.equal(p, before[n]) for n, p in named.items())
        twins.run(named, optimizer, twins.gradients(named, 2))
        moved = {n: float((p.detach() - before[n]).abs().max()) for n, p in named.items()}
        assert min(moved.values()) > 1e-3 and max(moved.values()) < 10, (name, moved)


def test_a_column_that_the_projection_does_not_see_is_left_alone() -> None:
    adam, value = torch.ones(2, 3), torch.tensor([[3.0, 0.0, 0.0], [4.0, 0.0, 1.0]])
    expected = torch.tensor([[2**0.5 / 5, 0.0, 2**0.5]])
    torch.testing.assert_close(scaling(adam, value), expected)
    assert scaling(adam, value, channels=False).item() == pytest.approx((6 / 26) ** 0.5)


def test_a_gradient_that_is_not_finite_ends_the_step() -> None:
    gradient = torch.ones(3, 4)
    gradient[1, 1] = float("nan")
    with pytest.raises(FloatingPointError, match="gradient of w is not finite"):
        update_of(gradient).singular_basis(2, 1)
