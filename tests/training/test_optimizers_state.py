"""What the optimizers act on and keep, and that runs with them clip, resume and spread as with AdamW."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import optimizer_twins as twins
import pytest
import torch
import training_tiny as tiny
from test_optimizers_restarts import stop_before
from transformers import GPT2Config, GPT2LMHeadModel

from warmstart.foundation.errors import UserError
from warmstart.foundation.events import EventLog
from warmstart.training import Interrupted
from warmstart.training.batches import StepBatches
from warmstart.training.engine import Engine
from warmstart.training.loop import make_objective
from warmstart.training.optimizer import WHOLE, optimizers
from warmstart.training.parameters import layer_matrices, make_optimizer, parameter_groups

LEAN: dict[str, dict[str, Any]] = {
    "galore": {"name": "galore", "rank": 5, "update_proj_gap": 5},
    "fira": {"name": "fira", "update_proj_gap": 5},
    "apollo": {"name": "apollo", "rank": 3, "update_proj_gap": 5},
    "apollo-mini": {"name": "apollo-mini", "update_proj_gap": 5},
    "adafactor": {"name": "adafactor"},
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=2, n_head=2))


MATRICES = {
    "llama": 2 * 7,  # q k v o, gate up down
    "bert": 2 * 6,  # query key value dense, two of the MLP
    "t5": 2 * (4 + 2) + 2 * (4 + 4 + 2),  # relative positions are a table
    "gpt2": 2 * 4,  # fused qkv, proj, two of the MLP
}


@pytest.mark.parametrize("kind", list(MATRICES))
def test_matrices_are_the_weights_of_attention_and_mlp(kind: str) -> None:
    model = gpt2() if kind == "gpt2" else tiny.MODELS[kind]()
    found = layer_matrices(model, dict(model.named_parameters()))
    assert len(found) == MATRICES[kind]
    assert all(model.get_parameter(name).ndim == 2 for name in found)
    strange = ("norm", "embed", "wte", "wpe", "shared", "lm_head", "cls.", "bias", "ln_")
    assert not [name for name in found if any(word in name.lower() for word in strange)]


SIZES = {  # values that are kept of a weight (m, n), m <= n, without the count of updates
    "adamw": lambda m, n, r: 2 * m * n,
    "restarts": lambda m, n, r: 2 * m * n,
    "galore": lambda m, n, r: m * r + 2 * n * r,
    "fira": lambda m, n, r: m * r + 2 * n * r + 1,
    "apollo": lambda m, n, r: 2 * n * r + 1,
    "apollo-mini": lambda m, n, r: 2 * n * r + 1,
    "adafactor": lambda m, n, r: m + n,
}


def test_the_sizes_of_all_optimizers_are_known() -> None:
    assert SIZES.keys() == set(optimizers.names()) == {*LEAN, "adamw", "restarts"}
    assert {name for name in LEAN if WHOLE in optimizers.get(name).tags} == LEAN.keys()


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("name", list(SIZES))
def test_measured_state_is_what_the_formula_says(name: str, rank: int | None) -> None:
    """Bytes of each matrix of a model; everything else has AdamW's two moments, or Adafactor's sums."""
    model = tiny.llama(kv_heads=1)
    named = dict(model.named_parameters())
    known = "rank" in optimizers.get(name).settings.model_fields
    given = {"name": name, "rank": rank} if rank and known else name
    optimizer = make_optimizer(model, named, tiny.settings(optimizer=given))
    twins.run(named, optimizer, twins.gradients(named, 2))
    matrices = layer_matrices(model, named)
    for key, parameter in named.items():
        m, n = sorted(parameter.shape) if parameter.ndim == 2 else (0, len(parameter))
        if name == "adafactor":
            expected = m + n
        elif key in matrices:
            expected = SIZES[name](m, n, rank or (1 if name == "apollo-mini" else m // 4))
        else:
            expected = 2 * parameter.numel()
        state = {k: v for k, v in optimizer.state[parameter].items() if k not in ("step", "updates")}
        assert sum(v.numel() for v in state.values()) == expected, (
            key,
            {k: v.shape for k, v in state.items()},
        )
        assert all(v.dtype == torch.float32 for v in state.values())
        assert all(v.is_contiguous() and v._base is None for v in state.values()), (
            "memory that is kept besides"
        )


def test_adamw_is_what_it_was() -> None:
    model = tiny.llama()
    named, options = dict(model.named_parameters()), tiny.settings(weight_decay=0.2, adam_beta2=0.9)
    ours = make_optimizer(model, named, options)
    plain = torch.optim.AdamW(
        parameter_groups(model, named, 0.2), lr=3e-3, betas=(0.9, 0.9), eps=1e-8, fused=True
    )
    assert type(ours) is torch.optim.AdamW and ours.defaults == plain.defaults
    for one, other in zip(ours.param_groups, plain.param_groups, strict=True):
        assert [id(p) for p in one["params"]] == [id(p) for p in other["params"]]
        assert {k: v for k, v in one.items() if k != "params"} == {
            k: v for k, v in other.items() if k != "params"
        }


@pytest.mark.parametrize("name", list(LEAN))
def test_stopped_and_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Stopped after a projection was renewed (5) and before the next renewal (10)."""
    options = {"optimizer": LEAN[name], "save_steps": 6, "learning_rate": 1e-2}
    whole = tiny.run(tmp_path / "whole", model=tiny.llama(dropout=0.2), **options)
    assert whole.curve.final < whole.curve.points[0].bpb - 0.02
    stop_before(monkeypatch, 9)
    with pytest.raises(Interrupted):
        tiny.run(tmp_path / "part", model=tiny.llama(dropout=0.2), **options)
    monkeypatch.undo()
    rest = tiny.run(tmp_path / "part", model=tiny.llama(dropout=0.2), **options)
    assert tiny.curve(rest) == tiny.curve(whole)
    assert tiny.same_bits(rest.checkpoint, whole.checkpoint)


@pytest.mark.parametrize("name", ["galore", "apollo", "adafactor"])
def test_gradients_are_divided_and_clipped_before_the_update(tmp_path: Path, name: str) -> None:
    """The engine's steps are a plain loop with the same optimizer, the mean loss and torch's clipping."""
    ours, plain = tiny.llama().train(), tiny.llama().train()
    options = tiny.settings(optimizer=LEAN[name], max_grad_norm=0.5, fast_kernels=False)
    objective = make_objective(ours, tiny.byte_tokenizer(), options)
    engine = Engine(ours, objective, options, tmp_path)
    optimizer = make_optimizer(plain, dict(plain.named_parameters()), options)
    with StepBatches(tiny.ArrayBlocks(), objective, seed=0, rows=4, passes=2) as batches:
        for step in range(4):
            engine.step(batches.get(step), 2, 3e-3)
            for batch in batches.get(step):
                nll, targets = objective.loss(plain, batch)
                nll.backward()
            for parameter in plain.parameters():
                parameter.grad /= 2 * targets  # two passes of equally many targets
            assert torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5) > 0.5, "clipping is not tested"
            optimizer.step()
            optimizer.zero_grad()
    engine.close()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


def test_bf16_leaves_weights_and_state_in_float32(tmp_path: Path) -> None:
    result = tiny.run(tmp_path, optimizer=LEAN["fira"], bf16=True, max_steps=30, learning_rate=1e-2)
    for file in ("model.safetensors", "optimizer.safetensors"):
        assert {v.dtype for v in tiny.weights(result.checkpoint, file).values()} == {torch.float32}
    assert result.curve.final < result.curve.points[0].bpb - 0.2


@pytest.mark.parametrize("name", list(LEAN))
def test_sharded_matrices_are_refused(name: str) -> None:
    model = tiny.llama()
    named = dict(model.named_parameters())
    named["model.layers.0.mlp.up_proj.weight"].device_mesh = "two processes"
    sentence = f"the optimizer '{name}' needs whole matrices, and FSDP2 .*set distributed: ddp"
    with pytest.raises(UserError, match=sentence):
        make_optimizer(model, named, tiny.settings(optimizer=name))
    make_optimizer(model, named, tiny.settings(optimizer="restarts"))


def test_two_processes_train_like_one(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"optimizer": LEAN["fira"], "max_steps": 8, "eval_steps": 1, "save_steps": 8}
    alone = tiny.run(tmp_path / "one", per_device_train_batch_size=4, **changes)
    script = Path(tiny.__file__)
    given = json.dumps({**changes, "per_device_train_batch_size": 2, "distributed": "ddp"})
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29737"]
    done = subprocess.run(
        [sys.executable, *launch, str(script), str(tmp_path / "two"), "llama", given],
        capture_output=True, text=True, env=tiny.environment(), timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    expected = [point.bpb for point in alone.curve.points]
    found = [event["bpb"] for event in EventLog(tmp_path / "two/events.jsonl").read("evaluation")]
    assert len(found) == 9 and found == pytest.approx(expected, abs=1e-4)
