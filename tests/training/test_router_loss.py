"""What training asks of a mixture's routers is what transformers asks of them, beside the likelihood."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_tiny as tiny
import transformers

from warmstart.objectives import LossModule, objectives
from warmstart.objectives._penalty import penalty_of
from warmstart.training.engine import Engine
from warmstart.training.loop import make_objective

sys.path.append(str(Path(__file__).parents[1] / "anatomy"))
from anatomy_models import MIXTURES, VOCAB, build, float64_throughout

OTHERS: dict[str, dict[str, Any]] = {
    "granitemoe": {"num_local_experts": 3, "num_experts_per_tok": 2},
    "minimax": {"num_local_experts": 3, "num_experts_per_tok": 2, "head_dim": 6, "block_size": 4},
    "phimoe": {"num_local_experts": 3, "num_experts_per_tok": 2},
}
"""Families without a table here; the classes of transformers say themselves what their routers are."""


def mixture(variant: str) -> Any:
    if variant in MIXTURES:
        return build(variant)
    shared = {"vocab_size": VOCAB, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    shared |= {"num_key_value_heads": 2, "intermediate_size": 20, "max_position_embeddings": 16}
    config = transformers.AutoConfig.for_model(
        variant, **shared, **OTHERS[variant], attn_implementation="eager", experts_implementation="eager"
    )
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config).double().eval()


def blocks(padding: tuple[int, ...]) -> np.ndarray:
    """Blocks of 9 ids with so many of them padding at the end."""
    ids = np.random.default_rng(0).integers(4, VOCAB, (len(padding), 9))
    for row, count in zip(ids, padding):
        row[len(row) - count :] = -1
    return ids


def theirs(model: Any, batch: dict[str, torch.Tensor]) -> Any:
    """What transformers computes when `output_router_logits` is on."""
    mask = (batch["labels"] != -100).long()
    return model(**batch, attention_mask=None if mask.all() else mask, output_router_logits=True)


def hooks_of(model: Any) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("padding", [(0, 0, 0), (0, 3, 6)])
@pytest.mark.parametrize("variant", [*MIXTURES, *OTHERS])
def test_the_loss_is_that_of_transformers(variant: str, padding: tuple[int, ...]) -> None:
    model = mixture(variant)
    model.config.router_aux_loss_coef = model.router_aux_loss_coef = 0.37
    objective = objectives.get("causal").target(None, tiny.byte_tokenizer())
    batch = objective.collate(blocks(padding), np.random.default_rng(0))
    model(**batch, output_router_logits=True)  # leaves transformers' own hooks
    hooks = hooks_of(model)
    penalty = penalty_of(model)
    assert penalty is not None and penalty.weight == 0.37
    module = LossModule(model, objective, penalty)
    with float64_throughout(model):
        expected = theirs(model, batch)
        expected.loss.backward()
        wanted = gradients(model)
        nll, targets, beside = module(batch)
        ((nll + penalty.weight * beside) / targets).backward()
        found = gradients(model)
        plain = LossModule(model, objective)(batch)[0]
    assert (beside / targets).item() == pytest.approx(expected.aux_loss.item(), rel=1e-12)
    assert (nll / targets + 0.37 * beside / targets).item() == pytest.approx(expected.loss.item(), rel=1e-12)
    assert nll.item() == pytest.approx(plain.item(), rel=1e-12), "the likelihood has no part of it"
    assert wanted.keys() == found.keys()
    for name, grad in wanted.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-9, atol=1e-12)
    assert hooks_of(model) > hooks
    penalty.close()
    assert hooks_of(model) == hooks


def test_nothing_is_asked_of_models_without_routers_or_weight() -> None:
    assert penalty_of(build("llama")) is None and penalty_of(build("t5")) is None
    model = build("mixtral")
    assert penalty_of(model, 0.0) is None
    other = penalty_of(model, 0.5)
    assert other is not None and other.weight == 0.5
    model.config.router_aux_loss_coef = 0.0
    assert penalty_of(model) is None
    reader = penalty_of(model, 1.0)
    assert reader is not None
    reader.begin()
    model(input_ids=torch.arange(4, 10)[None])
    assert reader.value(None) is None, "only what is watched counts"
    with torch.no_grad(), reader.watching():
        model(input_ids=torch.arange(4, 10)[None])
    assert reader.value(None) is None, "and only what can learn"


def tiny_mixture() -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 2, "max_position_embeddings": 64, "num_local_experts": 4}
    config = transformers.MixtralConfig(
        vocab_size=len(tiny.byte_tokenizer()),
        **shape,
        router_aux_loss_coef=0.2,
        bos_token_id=None,
        eos_token_id=None,
        experts_implementation="eager",
    )
    model = transformers.MixtralForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight += 0.03
        for layer in model.model.layers:
            layer.mlp.gate.weight[0] += 0.05  # uneven: all tokens have something of one direction
    return model


@pytest.mark.parametrize("coefficient", [None, 0.7])
def test_passes_weigh_by_their_targets(tmp_path: Path, coefficient: float | None) -> None:
    """A step over three passes with unequal padding against a plain loop over transformers' own losses."""
    ours, plain = tiny_mixture().double(), tiny_mixture().double()
    weight = coefficient or 0.2
    plain.router_aux_loss_coef = weight
    options = tiny.settings(
        gradient_accumulation_steps=3, router_aux_loss_coef=coefficient, fast_kernels=False, max_grad_norm=0.3
    )
    objective = make_objective(ours, tiny.byte_tokenizer(), options)
    engine = Engine(ours, objective, options, tmp_path)
    cuts = [blocks((0, 1)), blocks((5, 2)), blocks((7, 0))]
    batches = [objective.collate(cut, np.random.default_rng(0)) for cut in cuts]
    with float64_throughout(ours):
        outcome = engine.step(batches, 3, 1e-2)
        losses = [theirs(plain, batch) for batch in batches]
        counts = [int((batch["labels"][:, 1:] != -100).sum()) for batch in batches]
        sum(loss.loss * n / sum(counts) for loss, n in zip(losses, counts)).backward()
    auxiliary = sum(loss.aux_loss.item() * n for loss, n in zip(losses, counts))
    likelihood = sum(float(loss.loss - weight * loss.aux_loss) * n for loss, n in zip(losses, counts))
    assert float(outcome.penalty) == pytest.approx(auxiliary, rel=1e-12)
    assert outcome.sums.tolist() == pytest.approx([likelihood, sum(counts)], rel=1e-12)
    norm = torch.nn.utils.get_total_norm([p.grad for p in plain.parameters() if p.grad is not None])
    assert float(outcome.norm) == pytest.approx(float(norm), rel=1e-9)
    engine.close()
    assert hooks_of(ours) == 0


def events(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [line for line in lines if "learning_rate" in line]


def test_a_run_reports_it_apart_and_continues_with_it(tmp_path: Path) -> None:
    model, off = tiny_mixture(), tiny_mixture()
    ids = torch.from_numpy(tiny.ArrayBlocks().ids.astype(np.int64))
    tiny.run(tmp_path / "a", model=model, logging_steps=5, save_steps=4, router_aux_loss_coef=2.0)
    lines = events(tmp_path / "a")
    assert all(line["router_loss"] > 2.0 for line in lines), "2 of 4 experts: at least 2"
    tiny.run(tmp_path / "off", model=off, logging_steps=5, router_aux_loss_coef=0.0)
    without = events(tmp_path / "off")
    assert not any("router_loss" in line for line in without)
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in without], abs=0.1)
    balances = []
    for one in (model, off):
        with torch.no_grad():
            balances.append(float(one.eval()(input_ids=ids, output_router_logits=True).aux_loss))
    assert balances[0] < balances[1] - 0.02

    (tmp_path / "a/checkpoints/step-12/state.json").unlink()  # logged sums of steps 6 to 8 are taken up
    before = tiny.curve(tmp_path / "a")
    again = tiny_mixture()
    tiny.run(tmp_path / "a", model=again, logging_steps=5, save_steps=4, router_aux_loss_coef=2.0)
    assert tiny.curve(tmp_path / "a") == before
