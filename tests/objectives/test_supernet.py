"""What a model learns together with its sub-networks, by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from tiny_language_models import model_for, tokenizer_for
from torch.nn import functional as F

from warmstart.anatomy import anatomy_of_model
from warmstart.foundation.errors import UserError
from warmstart.objectives import objectives
from warmstart.shape.search.masks import MaskSettings, MaskSpace, masked
from warmstart.shape.search.space import Range

FAMILIES = {"llama": "supernet", "gpt2": "supernet", "bert": "masked-supernet"}


def parts(family: str, **settings: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Model, objective and a batch, in float64 and without dropout, which no two passes share."""
    tokenizer = tokenizer_for(family)
    torch.manual_seed(0)
    model = model_for(family, len(tokenizer)).double().eval()
    space = MaskSpace(anatomy_of_model(model), MaskSettings(units=Range(min=1)))
    entry = objectives.get(FAMILIES[family])
    objective = entry.target(entry.settings(**settings), tokenizer, sub_networks=space)
    rng = np.random.default_rng(1)
    batch = objective.collate(rng.integers(5, len(tokenizer), (2, 24)), rng)
    return model, objective, batch


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def places(
    model: Any, objective: Any, batch: dict[str, Any], sizes: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, V) of a sub-network at all places with a target, by transformers itself; the targets."""
    goal = objective.targets(batch["labels"]).reshape(-1)
    with masked(model, objective.sub_networks, sizes):
        made = model(**objective.inputs(model, batch)).logits
    return made.reshape(-1, made.shape[-1])[goal != -100], goal[goal != -100]


def alone(model: Any, objective: Any, batch: dict[str, Any], sizes: Any) -> torch.Tensor:
    logits, goal = places(model, objective, batch, sizes)
    return F.cross_entropy(logits, goal, reduction="sum")


def taught(model: Any, objective: Any, batch: dict[str, Any], sizes: Any, heat: float) -> torch.Tensor:
    """`CE(text) + T^2 CE(p_T, q_T)`, the whole model's p as numbers."""
    logits, goal = places(model, objective, batch, sizes)
    with torch.no_grad():
        expected = (places(model, objective, batch, objective.sub_networks.full)[0] / heat).softmax(-1)
    soft = -(expected * (logits / heat).log_softmax(-1)).sum()
    return F.cross_entropy(logits, goal, reduction="sum") + heat**2 * soft


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    size = max(float(g.abs().max()) for g in other.values())
    for name, gradient in other.items():
        assert float((one[name] - gradient).abs().max()) < 1e-6 * size, name


@pytest.mark.parametrize("family", FAMILIES)
def test_sandwich_is_the_sum_of_separate_gradients(family: str) -> None:
    model, objective, batch = parts(family, strategy="sandwich")
    objective.at(0.3)
    space, drawn = objective.sub_networks, objective.networks()
    assert drawn[0] == space.full and drawn[-1] == space.smallest and len(drawn) == 4
    total, count = objective.loss(model, batch)
    found = gradients(model, total)
    losses = [alone(model, objective, batch, sizes) for sizes in drawn]
    separate = [gradients(model, loss) for loss in losses]
    assert total.item() == pytest.approx(sum(float(loss.detach()) for loss in losses), rel=1e-9)
    assert count.item() == (objective.targets(batch["labels"]) != -100).sum().item()
    same(found, {name: sum(g[name] for g in separate) for name in found})  # type: ignore[misc]


@pytest.mark.parametrize("strategy", ["kd", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_sub_networks_learn_from_the_whole_which_does_not_learn_from_them(family: str, strategy: str) -> None:
    model, objective, batch = parts(family, strategy=strategy, temperature=3.0)
    objective.at(0.8)
    drawn = objective.networks()
    assert len(drawn) == (3 if strategy == "kd" else 4)
    found = gradients(model, objective.loss(model, batch)[0])
    expected = gradients(model, alone(model, objective, batch, drawn[0]))
    for sizes in drawn[1:]:
        more = gradients(model, taught(model, objective, batch, sizes, 3.0))
        expected = {name: expected[name] + more[name] for name in expected}
    same(found, expected)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_the_standard_strategy_is_the_plain_objective(family: str) -> None:
    model, objective, batch = parts(family, strategy="standard")
    entry = objectives.get({"supernet": "causal", "masked-supernet": "masked"}[FAMILIES[family]])
    plain = entry.target(entry.settings(), objective.tokenizer)
    one, other = objective.loss(model, batch), plain.loss(model, batch)
    assert one[0].item() == pytest.approx(other[0].item(), rel=1e-9) and one[1] == other[1]
    same(gradients(model, one[0]), gradients(model, plain.loss(model, batch)[0]))


def test_random_sub_networks_leave_the_rest_alone() -> None:
    model, objective, batch = parts("llama", strategy="random")
    space = objective.sub_networks
    for progress in (0.1, 0.2, 0.3):
        objective.at(progress)
        (sizes,) = objective.networks()
        found = gradients(model, objective.loss(model, batch)[0])
        kept = space.kept(sizes)
        for layer in range(space.depth):
            down = found[f"model.layers.{layer}.mlp.down_proj.weight"]
            units = kept.units[layer] if layer in kept.layers else 0
            assert not down[:, units:].any() and (units == 0 or down[:, :units].any())


def test_what_a_step_draws_depends_on_its_place_alone() -> None:
    _, objective, _ = parts("llama", strategy="full")
    _, again, _ = parts("llama", strategy="full")
    _, other, _ = parts("llama", strategy="full", seed=1)
    seen = []
    for step in range(20):
        for one in (objective, again, other):
            one.at((step + 0.5) / 20)
        seen.append(tuple(objective.networks()))
        assert objective.networks() == again.networks() == objective.networks()
    again.at(4.5 / 20)
    assert tuple(again.networks()) == seen[4], "a run that is continued draws what it would have drawn"
    assert len(set(seen)) == 20
    other.at(4.5 / 20)
    assert tuple(other.networks()) != seen[4]


def test_random_linear_masks_more_and_more() -> None:
    _, objective, _ = parts("llama", strategy="random-linear")
    full = objective.sub_networks.full

    def share(low: float) -> float:
        found = 0
        for step in range(400):
            objective.at(low + 0.1 * step / 400)
            found += objective.networks() != [full]
        return found / 400

    shares = [share(low) for low in (0.0, 0.45, 0.9)]
    for low, found in zip((0.05, 0.5, 0.95), shares):
        assert found == pytest.approx(low, abs=4 * math.sqrt(low * (1 - low) / 400) + 0.01)


def test_passes_count() -> None:
    for strategy, passes in (("standard", 1), ("random", 1), ("kd", 4), ("sandwich", 5), ("full", 5)):
        _, objective, _ = parts("llama", strategy=strategy, random_samples=3)
        assert objective.shape(16).passes == passes


def test_nothing_to_mask_is_said() -> None:
    model, objective, _ = parts("llama")
    entry = objectives.get("supernet")
    bare = entry.target(entry.settings(), objective.tokenizer)
    with pytest.raises(UserError, match=r"no sub-networks to train.*train-supernet"):
        bare.prepare(model, torch.device("cpu"))
    model.gradient_checkpointing_enable()
    with pytest.raises(UserError, match="do not see the masks"):
        objective.prepare(model, torch.device("cpu"))
