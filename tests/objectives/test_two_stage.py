"""Sub-models that learn before the whole: what they compute and what of them learns, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_language_models import model_for, tokenizer_for
from torch.nn import functional as F

from warmstart.foundation.errors import UserError
from warmstart.objectives import objectives

FAMILIES = {"llama": "two-stage", "gpt2": "two-stage", "bert": "masked-two-stage"}


def parts(family: str, **settings: Any) -> tuple[Any, Any, dict[str, Any]]:
    tokenizer = tokenizer_for(family)
    torch.manual_seed(0)
    model = model_for(family, len(tokenizer)).double().eval()
    entry = objectives.get(FAMILIES[family])
    objective = entry.target(entry.settings(**{"layers": 1, "until": 0.5} | settings), tokenizer)
    objective.prepare(model, torch.device("cpu"))
    rng = np.random.default_rng(1)
    return model, objective, objective.collate(rng.integers(5, len(tokenizer), (2, 24)), rng)


def at_height(objective: Any, height: int) -> None:
    """A step whose sub-model has so many layers."""
    for share in np.linspace(0, 0.49, 50):
        objective.at(float(share))
        if objective.height() == height:
            return
    raise AssertionError(f"no step has {height} layers")


def plain(model: Any, objective: Any, batch: dict[str, Any]) -> torch.Tensor:
    goal = objective.targets(batch["labels"])
    logits = model(**objective.inputs(model, batch)).logits
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), goal.reshape(-1), reduction="sum")


def learned(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad(set_to_none=True)
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sub_model_is_the_model_without_its_upper_layers(family: str) -> None:
    model, objective, batch = parts(family)
    blocks, depth = objective._blocks, len(objective._blocks)
    assert depth >= 2
    at_height(objective, 1)
    found, count = objective.loss(model, batch)
    layers = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and blocks[0] in list(m))
    upper = list(layers)[1:]
    del layers[1:]
    expected = plain(model, objective, batch)
    layers.extend(upper)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    assert int(count) == int((batch["labels"] != -100).sum()) or family != "bert"
    names = {n for n, _ in learned(model, found).items()}
    own = {n for n, p in model.named_parameters() if any(p is q for b in upper for q in b.parameters())}
    assert own and not names & own, "layers that were not computed learn nothing"
    assert all("forward" not in block.__dict__ for block in blocks), "the model is as it was"
    assert float(plain(model, objective, batch).detach()) != pytest.approx(float(found.detach()), rel=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_top_of_a_sub_model_learns(family: str) -> None:
    model, objective, batch = parts(family)
    depth = len(objective._blocks)
    at_height(objective, depth)
    found = learned(model, objective.loss(model, batch)[0])
    whole = learned(model, plain(model, objective, batch))
    top = {id(p) for p in objective._blocks[-1].parameters()}
    below = {id(p) for block in objective._blocks[:-1] for p in block.parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in top:
            assert float((found[name] - whole[name]).abs().max()) < 1e-9 * float(whole[name].abs().max() + 1)
        assert id(parameter) not in below or name not in found


def test_all_sub_models_come_and_then_the_whole() -> None:
    model, objective, batch = parts("llama", until=0.25)
    depth = len(objective._blocks)
    heights = []
    for step in range(200):
        objective.at((step + 0.5) / 200)
        heights.append(objective.height())
    assert set(heights[:50]) == set(range(1, depth + 1)) and set(heights[50:]) == {depth}
    objective.at(0.9)
    found, expected = objective.loss(model, batch)[0], plain(model, objective, batch)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), 1e-9)


def test_unusable_sub_models_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"cannot be divided into sub-models of 7 .*; set layers to one of 1, 2"
    ):
        parts("llama", layers=7)


def test_the_loop_trains_in_two_stages(tmp_path: Any) -> None:
    from warmstart.training.loop import make_objective, train
    from warmstart.training.settings import TrainSettings

    tokenizer = tokenizer_for("llama")
    torch.manual_seed(0)
    model = model_for("llama", len(tokenizer))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    given = {"name": "two-stage", "layers": 1, "until": 1.0}
    settings = TrainSettings(objective=given, max_steps=1, block_size=16, per_device_train_batch_size=2)
    objective = make_objective(model, tokenizer, settings)
    blocks = np.random.default_rng(0).integers(5, len(tokenizer), (4, 16))

    class Rows:
        fingerprint = "rows"

        def __len__(self) -> int:
            return len(blocks)

        def __getitem__(self, index: int) -> Any:
            return blocks[index]

    train(model, tokenizer, Rows(), settings, tmp_path / "run", objective=objective)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p.detach(), before[name])}
    stays = {name for name in before if ".layers." in name} - moved
    assert moved and stays, "weight decay does not reach layers that do not learn either"
