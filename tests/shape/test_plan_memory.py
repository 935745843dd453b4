"""Bytes per device against sums over every device of a layout, and against a run that is measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from plan_jobs import MT_NLG, job, llama

from warmstart.anatomy import anatomy_of
from warmstart.shape.plan import Layout, memory_of
from warmstart.shape.plan.activations import Attending, block_bytes, kept_by
from warmstart.shape.plan.memory import peak_memory, stage_memory
from warmstart.shape.plan.numerics import NUMERICS

COLUMNS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "embed_tokens", "lm_head")
ROWS = ("o_proj", "down_proj")


def shard(name: str, tensor: torch.Tensor, rank: int, size: int) -> torch.Tensor:
    """Megatron's part of a Llama weight, by its name."""
    if any(word in name for word in COLUMNS):
        return tensor.chunk(size, 0)[rank]
    return tensor.chunk(size, 1)[rank] if any(word in name for word in ROWS) else tensor


def stage_of(name: str, layers: int, stages: int) -> set[int]:
    """Pipeline stages that hold a weight of a tied Llama."""
    if ".layers." in name:
        return {int(name.split(".")[2]) * stages // layers}
    return {0, stages - 1} if "embed_tokens" in name else {stages - 1}


@pytest.mark.parametrize("precision", ["float32", "megatron", "bfloat16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize(("tensor", "pipeline"), [(1, 1), (2, 1), (4, 1), (1, 2), (2, 4)])
def test_every_device_holds_what_is_planned(tensor, pipeline, stage, precision):
    if pipeline > 1 and stage > 1:
        return
    small = job(llama(tie_word_embeddings=True), precision=precision)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**llama(tie_word_embeddings=True)))
    copies, numerics = 5, small.numerics
    layout = Layout(tensor=tensor, pipeline=pipeline, data=copies, stage=stage)
    planned = memory_of(small, layout)
    for place in range(pipeline):
        sizes = set()
        for rank in range(tensor):
            held = [
                shard(name, weight, rank, tensor).numel()
                for name, weight in model.named_parameters()
                if place in stage_of(name, 4, pipeline)
            ]
            sizes.add(sum(held))
        (size,) = sizes  # all ranks of a group hold equally much
        memory = planned[place]
        for found, each, first in (
            (memory.weights, numerics.weight, 3),
            (memory.gradients, numerics.gradient, 2),
            (memory.optimizer, numerics.master + 2 * numerics.moment, 1),
        ):
            over_copies = sum(found for _ in range(copies))
            assert over_copies == pytest.approx(size * each * (1 if stage >= first else copies))


def test_peak_is_the_fullest_stage():
    for recompute in ("none", "full"):
        for micro_batches in (1, 2, 9):
            layout = Layout(pipeline=4, micro_batch=2, micro_batches=micro_batches, recompute=recompute)
            small = job()
            every = [memory.total for memory in memory_of(small, layout)]
            assert peak_memory(small, layout).total == max(every)


def test_korthikanti_formula_comes_out_exactly():
    """`s b h (34 + 5 a s / h)` with dropout; `10 + 24 / t` without and `34 / t` with sequence parallelism."""
    anatomy, numerics = anatomy_of({**MT_NLG, "n_layer": 1}), NUMERICS["megatron"]
    kept, (h, a, s) = kept_by(anatomy, "decoder", 0, numerics), (20480, 128, 2048)

    def size(tensor: int, *, parallel: bool, selective: bool = False) -> float:
        attending = Attending(fused=False, dropout=True, sequence_parallel=parallel)
        return block_bytes(
            kept, numerics, attending, tensor=tensor, length=s, source_length=s, width=h, selective=selective
        )

    assert size(1, parallel=False) == s * h * (34 + 5 * a * s / h)
    assert size(8, parallel=False) == pytest.approx(s * h * (10 + 24 / 8 + 5 * a * s / h / 8))
    assert size(8, parallel=True) == pytest.approx(s * h / 8 * (34 + 5 * a * s / h))
    assert size(8, parallel=True, selective=True) == pytest.approx(s * h / 8 * 34)


class Saved:
    """Bytes of the distinct storages that a forward pass keeps for the backward pass."""

    def __init__(self, model: Any) -> None:
        self.own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.kept: dict[int, Any] = {}

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.own:
            self.kept[storage.data_ptr()] = storage  # kept alive, so that no address is used twice
        return tensor

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self.kept.values())


FAMILIES = {
    "llama": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 4, "head_dim": 32},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gpt_neox": {},
    "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}


def run(model_type: str, attention: str) -> tuple[Any, Any, Saved, torch.optim.Optimizer]:
    """One AdamW step of a small model on the CPU."""
    sizes = {
        "hidden_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    }
    if model_type == "gpt2":
        sizes = {
            "n_embd": 64,
            "n_layer": 4,
            "n_head": 4,
            "n_positions": 256,
            "n_inner": 160,
            "bos_token_id": 0,
        }
        sizes["eos_token_id"] = 0
    else:
        sizes["intermediate_size"] = 160
    config = transformers.AutoConfig.for_model(
        model_type, vocab_size=97, **sizes, **FAMILIES[model_type], attn_implementation=attention
    )
    masked = model_type == "bert"
    cls = transformers.AutoModelForMaskedLM if masked else transformers.AutoModelForCausalLM
    torch.manual_seed(0)
    model = cls.from_config(config).train()
    saved, ids = Saved(model), torch.randint(0, 97, (4, 128))
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        loss = model(ids, labels=ids).loss
    loss.backward()
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.step()
    return config, model, saved, optimizer


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_real_adam_run_needs_what_is_planned(model_type, attention):
    config, model, saved, optimizer = run(model_type, attention)
    anatomy = anatomy_of(config)
    small = job(config.to_dict(), length=128, attending=Attending(fused=attention == "sdpa"))
    (planned,) = memory_of(small, Layout(micro_batch=4))
    names = set(anatomy.language_model)
    assert names >= {name for name, _ in model.named_parameters()}
    weights = sum(p.nbytes for p in model.parameters())
    gradients = sum(p.grad.nbytes for p in model.parameters())
    moments = sum(s[key].nbytes for s in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq"))
    assert (planned.weights, planned.gradients, planned.optimizer) == (weights, gradients, moments)
    assert planned.activations == pytest.approx(saved.bytes, rel=0.1)
    measured = weights + gradients + moments + saved.bytes
    assert planned.total == pytest.approx(measured, rel=0.1)


def test_full_recomputation_keeps_inputs_and_one_block():
    small = job(llama(num_hidden_layers=6))
    part = small.slice(1)
    (block,) = part.blocks()
    none, full = (memory_of(small, Layout(recompute=r))[0].activations for r in ("none", "full"))
    inside = part.kept_bytes(block, "none")
    assert none == pytest.approx(6 * inside + part.head_bytes)
    assert full == pytest.approx(6 * 32 * 64 * 4 + inside + part.head_bytes)


@st.composite
def jobs(draw: Any) -> tuple[Any, Layout]:
    """A job and a layout that it can have."""
    config = llama(
        num_hidden_layers=draw(st.sampled_from([4, 6, 12])),
        num_key_value_heads=draw(st.sampled_from([2, 4, 8])),
        tie_word_embeddings=draw(st.booleans()),
        vocab_size=draw(st.integers(50, 300)),
    )
    names = ["adamw", "adamw-8bit", "galore", "lion"]
    small = job(
        config,
        precision=draw(st.sampled_from(sorted(NUMERICS))),
        optimizer=draw(st.sampled_from(names)),
        attending=Attending(draw(st.booleans()), draw(st.booleans()), draw(st.booleans())),
    )
    layout = Layout(
        tensor=draw(st.sampled_from([1, 2])),
        pipeline=draw(st.sampled_from([1, 2])),
        data=draw(st.integers(1, 9)),
        micro_batch=draw(st.integers(1, 5)),
        micro_batches=draw(st.integers(1, 9)),
        recompute=draw(st.sampled_from(["none", "selective", "full"])),
    )
    stage = draw(st.integers(0, 3 if layout.pipeline == 1 else 1))
    return small, Layout(**{**layout.as_dict(), "stage": stage})


@settings(max_examples=60, deadline=None)
@given(pair=jobs(), factor=st.integers(2, 4))
def test_more_devices_never_need_more_memory_each(pair, factor):
    small, layout = pair

    def total(**changes: Any) -> float:
        return peak_memory(small, Layout(**{**layout.as_dict(), **changes})).total

    here = total() * (1 + 1e-12)
    assert total(data=layout.data * factor) <= here
    if layout.tensor == 1:
        assert total(tensor=2) <= here
    if layout.pipeline == 1 and layout.stage <= 1:
        assert total(pipeline=2) <= here


@settings(max_examples=60, deadline=None)
@given(pair=jobs())
def test_memory_grows_and_shrinks_as_it_must(pair):
    small, layout = pair
    memory = stage_memory(small, layout, 0)

    def other(**changes: Any) -> Any:
        return stage_memory(small, Layout(**{**layout.as_dict(), **changes}), 0)

    def state(memory: Any) -> float:
        return memory.weights + memory.gradients + memory.optimizer

    assert other(micro_batch=layout.micro_batch + 1).activations > memory.activations
    assert other(micro_batches=layout.micro_batches + 1).activations >= memory.activations
    states = [state(other(stage=stage, pipeline=1)) for stage in range(4)]
    assert states == sorted(states, reverse=True)
    assert min(memory.weights, memory.gradients, memory.optimizer, memory.activations) >= 0
    every = [other(recompute=kind).activations for kind in ("none", "selective", "full")]
    assert every[1] <= every[0]
    assume(layout.pipeline == 1)  # several blocks on a stage: their inputs and one block are less than all
    assert every[2] <= every[0]
