"""One optimizer step is the mathematics it should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_tiny as tiny
from torch.nn import functional as F

from warmstart.foundation.errors import UserError
from warmstart.training import TrainSettings
from warmstart.training.batches import StepBatches
from warmstart.training.engine import Engine
from warmstart.training.kernels import fast_kernels
from warmstart.training.loop import make_objective
from warmstart.training.order import DataOrder
from warmstart.training.parameters import parameter_groups
from warmstart.training.phases import only_trainable

STEPS = 5


def train_steps(model: Any, tmp_path: Path, *, rows: int, passes: int, **changes: Any) -> list[float]:
    """Mean losses of a few steps of the engine in float64."""
    model = model.double().train()
    options = tiny.settings(per_device_train_batch_size=rows, gradient_accumulation_steps=passes, **changes)
    objective = make_objective(model, tiny.byte_tokenizer(), options)
    engine = Engine(model, objective, options, tmp_path)
    losses = []
    with StepBatches(tiny.ArrayBlocks(), objective, seed=0, rows=rows, passes=passes) as batches:
        for step in range(STEPS):
            nll, targets = engine.step(batches.get(step), passes, 1e-2).sums.tolist()
            losses.append(nll / targets)
    engine.close()
    return losses


def largest_difference(a: Any, b: Any) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max(float((x - y).detach().abs().max()) for x, y in pairs)


@pytest.mark.parametrize("kind", list(tiny.MODELS))
def test_accumulation_does_not_change_the_step(tmp_path: Path, kind: str) -> None:
    """1 x 8, 4 x 2 and 8 x 1 blocks: also masked, where passes have unequal numbers of targets."""
    make = {"llama": tiny.llama, "bert": lambda: tiny.bert(dropout=0.0), "t5": lambda: tiny.t5(dropout=0.0)}[
        kind
    ]
    models, losses = [], []
    for passes in (1, 4, 8):
        models.append(make())
        losses.append(train_steps(models[-1], tmp_path, rows=8 // passes, passes=passes, fast_kernels=False))
    for model, loss in zip(models[1:], losses[1:], strict=True):
        assert loss == pytest.approx(losses[0], abs=1e-9)
        assert largest_difference(models[0], model) < 1e-9


def test_step_equals_a_plain_loop(tmp_path: Path) -> None:
    """Loss from full logits, clipping and AdamW of torch, written out."""
    ours, plain = tiny.llama(), tiny.llama().double().train()
    losses = train_steps(ours, tmp_path, rows=4, passes=2, max_grad_norm=0.5)
    optimizer = torch.optim.AdamW(
        parameter_groups(plain, dict(plain.named_parameters()), 0.1), lr=1e-2, betas=(0.9, 0.95), fused=False
    )
    order, blocks, expected = DataOrder(40, 0), tiny.ArrayBlocks(), []
    with fast_kernels(plain):  # transformers' own RMSNorm rounds to float32, also in a float64 model
        for step in range(STEPS):
            ids = torch.from_numpy(np.stack([blocks[i] for i in order.indices(8 * step, 8)]).astype(np.int64))
            logits = plain(input_ids=ids).logits[:, :-1]
            loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
            loss.backward()
            assert torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5) > 0.5, "clipping is not tested"
            optimizer.step()
            optimizer.zero_grad()
            expected.append(loss.item())
    assert losses == pytest.approx(expected, abs=1e-9)
    assert largest_difference(ours, plain) < 1e-9


def test_decay_is_on_body_matrices_only() -> None:
    for model in (tiny.llama(), tiny.llama(tied=False), tiny.bert(), tiny.t5()):
        named = dict(model.named_parameters())
        decaying, other = parameter_groups(model, named, 0.1)
        assert decaying["weight_decay"] == 0.1 and other["weight_decay"] == 0.0
        names = {id(p): name for name, p in named.items()}
        decayed = {names[id(p)] for p in decaying["params"]}
        assert decayed and len(decaying["params"]) + len(other["params"]) == len(named)
        assert all(named[name].ndim == 2 for name in decayed)
        assert not [
            n for n in decayed if "norm" in n.lower() or "embed" in n or "shared" in n or "lm_head" in n
        ]
        assert not [n for n in decayed if "relative_attention_bias" in n]


@pytest.mark.parametrize(
    ("trainable", "moving"),
    [
        ("embeddings", {"model.embed_tokens.weight", "lm_head.weight"}),
        ([r"layers\.1\..*proj", "^model.norm"], None),
    ],
)
def test_frozen_parameters_do_not_move(tmp_path: Path, trainable: Any, moving: set[str] | None) -> None:
    model = tiny.llama(tied=False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tiny.run(tmp_path / "a", model=model, trainable=trainable, save_steps=5)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == (
        moving or {n for n in before if ("layers.1." in n and "proj" in n) or n == "model.norm.weight"}
    )
    assert all(p.requires_grad for p in model.parameters())
    again = tiny.llama(tied=False)
    (tmp_path / "a/checkpoints/step-12/state.json").unlink()
    rest = tiny.run(tmp_path / "a", model=again, trainable=trainable, save_steps=5)
    assert rest.steps == 12 and largest_difference(model, again) == 0


def test_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="no parameter name contains"), only_trainable(tiny.llama(), ["nope"]):
        pass
    with pytest.raises(UserError, match="not a regular expression"), only_trainable(tiny.llama(), ["("]):
        pass


def test_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    model = tiny.llama()
    with torch.no_grad():
        model.model.norm.weight[3] = float("inf")
    with pytest.raises(UserError, match=r"not finite at step 1 .*lower learning_rate"):
        tiny.train(model, None, tiny.ArrayBlocks(), tiny.settings(), tmp_path / "a")
    assert not list(tmp_path.glob("a/checkpoints/step-*"))


def test_order_is_a_permutation_per_epoch() -> None:
    order = DataOrder(7, seed=3)
    epochs = [order.indices(7 * e, 7) for e in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    whole = np.concatenate(epochs)
    fresh = DataOrder(7, seed=3)
    assert all(np.array_equal(fresh.indices(s, 9), whole[s : s + 9]) for s in (18, 3, 0, 11))
    assert not np.array_equal(DataOrder(7, seed=4).indices(0, 28), whole)


def test_bf16_keeps_float32_weights_and_learns(tmp_path: Path) -> None:
    model = tiny.llama()
    low = tiny.run(tmp_path / "low", model=model, bf16=True, max_steps=40)
    high = tiny.run(tmp_path / "high", max_steps=40)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert high.curve.final < high.curve.points[0].bpb - 0.3
    assert low.curve.final == pytest.approx(high.curve.final, abs=0.02)


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain = tiny.run(tmp_path / "a")
    recomputed = tiny.run(tmp_path / "b", gradient_checkpointing=True)
    assert [p.bpb for p in recomputed.curve.points] == pytest.approx(
        [p.bpb for p in plain.curve.points], abs=1e-6
    )


def test_settings_name_the_nearest_key_and_one_budget() -> None:
    with pytest.raises(UserError, match="did you mean 'learning_rate'"):
        TrainSettings.parse({"learning_rat": 1})
    with pytest.raises(UserError, match="only one budget"):
        TrainSettings.parse({"max_steps": 1, "max_tokens": 1})
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        TrainSettings.parse({"lr_scheduler_type": "cosin"})
    assert TrainSettings(lr_scheduler_type="warmup_stable_decay").lr_scheduler_type == "warmup-stable-decay"


def test_multipliers_split_the_groups() -> None:
    model = tiny.llama(tied=False)
    named = dict(model.named_parameters())
    groups = parameter_groups(model, named, 0.1, {r"layers\.0\.": 0.25, "proj": 2.0})
    found = {id(p): (g["lr_multiplier"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(found) == sum(len(g["params"]) for g in groups) == len(named)
    for name, parameter in named.items():
        factor = 0.25 if "layers.0." in name else 2.0 if "proj" in name else 1.0
        assert found[id(parameter)] == (factor, 0.1 if "proj" in name else 0.0), name
    assert {g["lr_multiplier"] for g in parameter_groups(model, named, 0.1)} == {1.0}
    with pytest.raises(UserError, match=r"'layers\.9' is found in no name .*such as model"):
        parameter_groups(model, named, 0.1, {"layers.9": 2.0})
    with pytest.raises(UserError, match="is not a regular expression"):
        TrainSettings.parse({"lr_multipliers": {"(": 2.0}})


def test_a_factor_is_a_rate(tmp_path: Path) -> None:
    """Half of the factor and twice the rate are the same; and a run is continued with the same factors."""
    ends = []
    for folder, rate, factor in (("a", 4e-3, 0.5), ("b", 2e-3, 1.0)):
        model = tiny.llama()
        tiny.run(tmp_path / folder, model=model, learning_rate=rate, lr_multipliers={".": factor})
        ends.append(model)
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in ends), strict=True))
    model = tiny.llama()
    tiny.run(tmp_path / "c", model=model, learning_rate=2e-3, lr_multipliers={r"layers\.0\.": 3.0})
    assert not torch.equal(model.lm_head.weight, ends[1].lm_head.weight)
