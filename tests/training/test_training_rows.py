"""Chosen rows learn and no bit of the others changes; what rests in a phase does not move."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import training_tiny as tiny

from warmstart.foundation.errors import UserError
from warmstart.training import TrainSettings, train
from warmstart.training.phases import Phase, only_trainable, phases, resting
from warmstart.training.rows import row_mask

ROWS = [3, 40, 41, 200]
MAKE = {
    "tied": lambda: tiny.llama(tied=True),
    "untied": lambda: tiny.llama(tied=False),
    "masked": tiny.bert,
    "seq2seq": tiny.t5,
}


def bits(tensor: torch.Tensor) -> np.ndarray:
    """The raw bits: 0.0 and -0.0 differ."""
    return tensor.detach().cpu().contiguous().view(torch.int32).numpy()


def run(folder: Path, model: Any, rows: Any = ROWS, **changes: Any) -> Any:
    return train(
        model, tiny.byte_tokenizer(), tiny.ArrayBlocks(), tiny.settings(**changes), folder, rows=rows
    )


def signed_zeros(model: Any) -> Any:
    """Zeros of both signs in every vocabulary matrix, the values that additions change most easily."""
    with torch.no_grad():
        for parameter in vocabulary(model).values():
            flat = parameter.view(parameter.shape[0], -1)
            flat[5], flat[6] = 0.0, -0.0
    return model


def vocabulary(model: Any) -> dict[str, torch.nn.Parameter]:
    size = model.get_input_embeddings().weight.shape[0]
    return {name: p for name, p in model.named_parameters() if p.shape[0] == size}


@pytest.mark.parametrize("kind", list(MAKE))
@pytest.mark.parametrize("trainable", ["embeddings", "all"])
def test_only_chosen_rows_change_by_a_bit(tmp_path: Path, kind: str, trainable: str) -> None:
    """Input rows, head rows and head bias; with momentum, weight decay and clipping, body frozen or not."""
    model = signed_zeros(MAKE[kind]())
    before = {name: bits(p).copy() for name, p in model.named_parameters()}
    run(tmp_path / "a", model, trainable=trainable, weight_decay=0.5, max_grad_norm=0.1)
    found = vocabulary(model)
    assert len(found) == {"tied": 1, "untied": 2, "masked": 2, "seq2seq": 1}[kind]
    for name in found:
        changed = (bits(found[name]) != before[name]).reshape(len(before[name]), -1).any(1)
        assert np.flatnonzero(changed).tolist() == ROWS, name
    moved = {name for name, p in model.named_parameters() if (bits(p) != before[name]).any()}
    assert (moved == found.keys()) == (trainable == "embeddings")


def test_a_mask_is_the_same_as_ids(tmp_path: Path) -> None:
    size = len(tiny.byte_tokenizer())
    mask = np.zeros(size, dtype=bool)
    mask[ROWS] = True
    one, two = tiny.llama(), tiny.llama()
    run(tmp_path / "a", one)
    run(tmp_path / "b", two, rows=mask)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))
    assert row_mask([1, 1], 4).tolist() == [False, True, False, False]


def test_clipping_sees_the_chosen_rows_only(tmp_path: Path) -> None:
    """The same step as on a model in which nothing else gets a gradient, written out."""
    model, plain = tiny.llama(tied=False), tiny.llama(tied=False)
    run(tmp_path / "a", model, trainable=["lm_head"], max_steps=1, max_grad_norm=1e-3, weight_decay=0.0)
    ids = torch.from_numpy(np.stack([tiny.ArrayBlocks()[i] for i in order(4)]).astype(np.int64))
    plain(input_ids=ids, labels=ids).loss.backward()
    grad = plain.lm_head.weight.grad
    grad[[i for i in range(len(grad)) if i not in ROWS]] = 0
    grad *= (1e-3 / (grad.norm() + 1e-6)).clamp(max=1)
    options = tiny.settings(max_steps=1)
    from warmstart.training.plan import Plan

    rate = Plan.of(options, tokens_per_step=96, num_blocks=40).learning_rate(0, 0)
    optimizer = torch.optim.AdamW([plain.lm_head.weight], lr=rate, betas=(0.9, 0.95), weight_decay=0)
    optimizer.step()
    torch.testing.assert_close(model.lm_head.weight, plain.lm_head.weight, rtol=1e-5, atol=1e-7)


def order(count: int) -> list[int]:
    from warmstart.training.order import DataOrder

    return DataOrder(40, 0).indices(0, count).tolist()


def test_resume_continues_only_with_the_same_rows(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", tiny.llama(tied=False), trainable="embeddings")
    run(tmp_path / "part", tiny.llama(tied=False), trainable="embeddings")
    (tmp_path / "part/checkpoints/step-12/state.json").unlink()
    for other in ([3, 40, 41], None):
        with pytest.raises(UserError, match="trained rows was '4 of "):
            run(tmp_path / "part", tiny.llama(tied=False), rows=other, trainable="embeddings")
    rest = run(tmp_path / "part", tiny.llama(tied=False), trainable="embeddings")
    assert tiny.same_bits(rest.checkpoint, whole.checkpoint)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no vocabulary row"),
        ([9999], "no row 9999 to train"),
        ([-1], "no row -1 to train"),
        (np.ones(5, dtype=bool), r"shape \(5,\)"),
    ],
)
def test_impossible_rows_are_refused(tmp_path: Path, rows: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path / "a", tiny.llama(), rows=rows)


def test_rows_without_a_trained_matrix_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no vocabulary matrix is trained"):
        run(tmp_path / "a", tiny.llama(), trainable=["layers.1"])


def test_text_in_one_cut_teaches_a_parallel_objective_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"two cuts of one text.*train-rows"):
        run(tmp_path / "a", tiny.llama(), objective="token-distillation", trainable="embeddings")


@pytest.mark.parametrize(("distributed", "objective"), [("ddp", "causal"), ("fsdp2", "multi-token")])
def test_rows_of_two_processes(tmp_path: Path, distributed: str, objective: str) -> None:
    """Each process masks its own share of the gradients; a second head is shared out like the model."""
    alone = signed_zeros(tiny.llama(tied=False))
    before = {name: bits(p).copy() for name, p in alone.named_parameters()}
    changes = {"max_steps": 4, "save_steps": None, "trainable": "embeddings", "objective": objective}
    run(tmp_path / "one", alone, per_device_train_batch_size=4, **changes)
    script = Path(__file__).with_name("rows_worker.py")
    port = 29_760 + 2 * (distributed == "ddp")
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}", str(script)]
    options = {**changes, "per_device_train_batch_size": 2, "distributed": distributed}
    done = subprocess.run(
        [sys.executable, *launch, str(tmp_path / "two"), json.dumps(options)],
        capture_output=True,
        text=True,
        env=tiny.environment(),
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    trained = tiny.weights(tmp_path / "two/checkpoints/step-4")
    for name, parameter in alone.named_parameters():
        changed = (bits(trained[name]) != before[name]).reshape(len(before[name]), -1).any(1)
        assert np.flatnonzero(changed).tolist() == (ROWS if name in vocabulary(alone) else []), name
        torch.testing.assert_close(trained[name], parameter.detach(), rtol=0, atol=1e-5)


def test_a_freeze_schedule_moves_the_body_only_after_its_phase(tmp_path: Path) -> None:
    """`{embeddings: 0.5, all: 1}`: after half of the steps only rows have moved, in the end everything."""
    trainable = {"embeddings": 0.5, "all": 1.0}
    model = tiny.llama(tied=False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    seen: list[set[str]] = []

    def look(current: Any) -> float:
        seen.append({n for n, p in current.named_parameters() if not torch.equal(p, before[n])})
        return 1.0

    options = tiny.settings(trainable=trainable, eval_points=[0.5], eval_steps=None)
    train(model, tiny.byte_tokenizer(), tiny.ArrayBlocks(), options, tmp_path / "a", evaluate=look)
    assert seen == [set(), {"model.embed_tokens.weight", "lm_head.weight"}, set(before)]
    assert all(p.requires_grad for p in model.parameters())
    moments = tiny.weights(tmp_path / "a/checkpoints/step-12", "optimizer.safetensors")
    steps = {name.removeprefix("step/"): int(v) for name, v in moments.items() if name.startswith("step/")}
    assert steps["lm_head.weight"] == 12 and steps["model.norm.weight"] == 6


def test_a_freeze_schedule_is_resumed_exactly(tmp_path: Path) -> None:
    """Stopped inside the first phase (step 4) and inside the second (step 8)."""
    changes = {"trainable": {"embeddings": 0.5, r"layers\.1|embed|lm_head": 0.75, "all": 1.0}}
    whole = tiny.run(tmp_path / "whole", **changes)
    for kept in ("step-4", "step-8"):
        tiny.run(tmp_path / kept, save_total_limit=None, **changes)
        for folder in (tmp_path / kept / "checkpoints").iterdir():
            if folder.name != kept:
                (folder / "state.json").unlink()
        rest = tiny.run(tmp_path / kept, **changes)
        assert tiny.same_bits(rest.checkpoint, whole.checkpoint)
        assert tiny.curve(rest) == tiny.curve(whole)


def test_one_phase_is_no_schedule(tmp_path: Path) -> None:
    one = tiny.run(tmp_path / "a", trainable={"all": 1.0})
    two = tiny.run(tmp_path / "b")
    assert tiny.same_bits(one.checkpoint, two.checkpoint)


def test_phases_of_a_schedule() -> None:
    schedule = [Phase(0.1, frozenset("a")), Phase(1.0, frozenset("abc"))]
    assert resting(schedule, 0.0999) == {"b", "c"}
    assert resting(schedule, 0.1) == resting(schedule, 1.0) == frozenset()
    for wrong in ({}, {"all": 0.5}, {"embeddings": 0.0, "all": 1}, {"embeddings": 1, "all": 1}):
        with pytest.raises(UserError, match="must rise from above 0 to 1"):
            TrainSettings.parse({"trainable": wrong})


def test_2x2ls_is_rows_head_and_the_outer_layers() -> None:
    """By the family's table, whatever the layers are called; norms of the body stay frozen."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=6,
            num_attention_heads=2,
            tie_word_embeddings=False,
        )
    )
    (found,) = phases(llama, "2x2ls")
    prefixes = {f"model.layers.{i}." for i in (0, 1, 4, 5)}
    assert found.names == {
        name
        for name, _ in llama.named_parameters()
        if name in ("model.embed_tokens.weight", "lm_head.weight")
        or any(name.startswith(prefix) for prefix in prefixes)
    }
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=8, n_layer=5, n_head=2, n_positions=16))
    with only_trainable(gpt2, "2x2ls"):
        learning = {name for name, p in gpt2.named_parameters() if p.requires_grad}
    assert {name.split(".")[2] for name in learning if ".h." in name} == {"0", "1", "3", "4"}
    assert "transformer.wte.weight" in learning and "transformer.wpe.weight" not in learning
