"""The search against all layouts tried one by one; times; what is recommended to run them."""

from __future__ import annotations

import itertools

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_jobs import MT_NLG, job, llama

from warmstart.foundation.errors import UserError
from warmstart.shape.plan import Layout, PlanSettings, evaluate, plan, search
from warmstart.shape.plan.hardware import Hardware, HardwareSettings, hardware_of, hardware_table
from warmstart.shape.plan.launch import launch
from warmstart.shape.plan.memory import memory_of
from warmstart.shape.plan.planner import workload_of
from warmstart.shape.plan.search import TRUSTED, layouts
from warmstart.shape.plan.timing import days, predict

SMALL = Hardware(
    title="a small device",
    memory_gb=0.01,
    bfloat16=1,
    float32=0.5,
    bandwidth=10,
    link=5,
    network=1,
    devices_per_node=4,
)


def by_hand(small: object, devices: int, batch: int, node: int) -> set[Layout]:
    """Every layout of a Llama of 6 layers, 8 heads in 4 groups, by trying all numbers."""
    found = set()
    numbers = range(1, devices + 1)
    for tensor, pipeline, data in itertools.product(numbers, numbers, numbers):
        if tensor * pipeline * data != devices or node % tensor or 4 % tensor or 6 % pipeline:
            continue
        for stage, micro in itertools.product(range(4), (1, 2, 4, 8, 16, 32)):
            if batch % (data * micro) or (pipeline > 1 and stage > 1) or (data == 1 and stage):
                continue
            for recompute in ("none", "full"):
                many = batch // (data * micro)
                found.add(Layout(tensor, pipeline, data, stage, micro, many, recompute))
    return found


@settings(max_examples=15, deadline=None)
@given(
    devices=st.sampled_from([1, 2, 3, 4, 6, 8, 12]),
    batch=st.sampled_from([12, 24, 32]),
    node=st.sampled_from([1, 2, 4]),
    memory=st.sampled_from([0.001, 0.003, 0.01, 0.1]),
)
def test_search_tries_every_layout_and_keeps_what_fits(devices, batch, node, memory):
    small = job(llama(num_hidden_layers=6), precision="mixed")
    device = SMALL.model_copy(update={"devices_per_node": node, "memory_gb": memory})
    options = PlanSettings(config=llama(), devices=devices, batch_size=batch, reserve=0.0)
    every = by_hand(small, devices, batch, node)
    assert set(layouts(small, device, options)) == every
    fitting = {layout for layout in every if max(m.total for m in memory_of(small, layout)) <= memory * 1e9}
    if not fitting:
        with pytest.raises(UserError):
            search(small, device, options)
        return
    found = search(small, device, options)
    assert {candidate.layout for candidate in found} == fitting
    times = [candidate.timing.step_seconds for candidate in found]
    assert times[0] <= (1 + TRUSTED) * min(times)
    for earlier, later in itertools.pairwise(times):
        assert earlier <= later * (1 + TRUSTED)


def test_what_is_fixed_stays_fixed():
    small, options = job(llama(), precision="mixed"), {"devices": 8, "batch_size": 32}
    fixed = {"tensor": 2, "pipeline": 2, "zero_stage": 1, "micro_batch": 4, "recompute": "full"}
    (layout,) = layouts(small, SMALL, PlanSettings(**options, **fixed))
    assert layout == Layout(2, 2, 2, 1, 4, 4, "full")
    with pytest.raises(UserError, match="use one of 1, 2, 4"):
        list(layouts(small, SMALL, PlanSettings(**options, tensor=3)))
    with pytest.raises(UserError, match="needs the gradients of whole matrices"):
        lean = job(llama(), optimizer="galore")
        list(layouts(lean, SMALL, PlanSettings(**options, optimizer="galore", zero_stage=2)))
    lean = job(llama(), optimizer="galore")
    assert {layout.stage for layout in layouts(lean, SMALL, PlanSettings(**options))} == {0}


def test_a_growing_batch_is_divided_at_every_size():
    options = {"devices": 4, "batch_size": 32, "tensor": 1, "pipeline": 1, "recompute": "none"}
    small, ramp = job(llama()), {"start": 8, "increment": 12, "tokens": 1e6}
    found = set(layouts(small, SMALL, PlanSettings(**options, zero_stage=0, ramp=ramp)))
    assert found == {Layout(data=4, micro_batch=1, micro_batches=8)}
    assert not list(layouts(small, SMALL, PlanSettings(**options | {"devices": 8}, ramp=ramp)))


def test_what_does_not_fit_says_how_many_devices_would_do():
    options = PlanSettings(config=llama(hidden_size=512, intermediate_size=2048), devices=1, batch_size=8)
    big = job(dict(options.config), precision="mixed")
    device = SMALL.model_copy(update={"memory_gb": 0.12})
    with pytest.raises(
        UserError, match=r"needs 0\.\d GB per device, 0\.1 GB are there; use about (\d+) devices"
    ) as said:
        search(big, device, options)
    enough = int(str(said.value).split("about ")[1].split()[0])
    assert search(big, device, options.model_copy(update={"devices": enough}))
    with pytest.raises(UserError, match="cannot share"):
        search(job(), SMALL, PlanSettings(config=llama(), devices=7, batch_size=12))


@pytest.mark.parametrize(("nodes", "measured"), [(280, 126), (350, 121), (420, 113)])
def test_mt_nlg_is_as_fast_as_it_was(nodes, measured):
    """TFLOP/s per A100 that the paper reports; the efficiency is the default, one number for all three."""
    options = PlanSettings(config=MT_NLG, precision="megatron", batch_size=1920, devices=8 * nodes)
    big = workload_of(job(MT_NLG).anatomy, options)
    layout = Layout(8, 35, nodes * 8 // 280, 0, 1, 1920 // (nodes * 8 // 280), "full")
    assert layout.devices == 8 * nodes and layout.batch == 1920
    found, stages = evaluate(big, hardware_of("a100-80gb"), layout, efficiency=options.efficiency)
    assert found.timing.tflops_per_device == pytest.approx(measured, rel=0.05)
    assert found.timing.bubble == pytest.approx(34 / layout.micro_batches)
    assert len(stages) == 35
    assert max(memory.total for memory in stages) == found.memory.total < 80e9


def test_a_step_is_compute_when_nothing_else_costs(monkeypatch):
    monkeypatch.setattr("warmstart.shape.plan.timing.LATENCY", 0.0)
    endless = SMALL.model_copy(update={"bandwidth": 1e15, "link": 1e15, "network": 1e15})
    small = job(precision="mixed")
    layout = Layout(data=2, micro_batch=4, micro_batches=3)
    (memory,) = memory_of(small, layout)
    found = predict(small, layout, endless, memory, efficiency=0.25)
    seconds = small.operations.training() * 12 / (1e12 * 0.25)
    assert found.compute_seconds == pytest.approx(seconds, rel=1e-12)
    assert found.step_seconds == pytest.approx(seconds, rel=1e-9)
    assert found.utilisation == pytest.approx(0.25)
    assert found.tokens_per_second == pytest.approx(24 * 32 / seconds)
    staged = Layout(pipeline=4, micro_batches=12)
    inner = predict(small, staged, endless, memory, efficiency=0.25)
    # the head is on the last stage alone and sets the pace of all
    slowest = (3 * small.operations.blocks / 4 + 3 * small.operations.head) / (1e12 * 0.25)
    assert inner.step_seconds == pytest.approx((12 + 3) * slowest)


def test_a_small_model_is_not_divided():
    found = plan(PlanSettings(config=llama(), hardware="h100-80gb", devices=8, batch_size=64))
    best = found["layouts"][0]["layout"]
    assert (best["tensor"], best["pipeline"], best["data"]) == (1, 1, 8)


def test_days_at_a_known_utilisation():
    assert days(6e9, 1e12, 100, 1e14, 0.5) == pytest.approx(6e21 / (100 * 1e14 * 0.5) / 86400)
    options = {"config": llama(), "hardware": "l4", "tokens": 1e10, "batch_size": 16}
    free, told = (plan(PlanSettings(**options, utilisation=u)) for u in (None, 0.3))
    per_token = free["operations"]["training_per_token"]
    assert told["layouts"][0]["days"] == pytest.approx(per_token * 1e10 / (121e12 * 0.3) / 86400)
    assert free["layouts"][0]["days"] != told["layouts"][0]["days"]


def test_the_whole_plan_of_mt_nlg():
    options = {"config": MT_NLG, "precision": "megatron", "batch_size": 1920, "devices": 2240, "top": 99}
    found = plan(PlanSettings(**options, hardware="a100-80gb", recompute="full", tokens=270e9))
    best = found["layouts"][0]
    assert best["devices_per_replica"] == 280
    assert (best["layout"]["tensor"], best["layout"]["pipeline"]) == (8, 35)
    assert found["model"]["state_bytes"] == pytest.approx(10.6e12, rel=0.02)
    assert found["model"]["parameters"]["total"] == pytest.approx(530e9, rel=0.02)
    assert len(found["layouts"]) == found["fitting"]
    assert len(found["stages"]) == 35
    assert max(stage["total"] for stage in found["stages"]) == best["memory"]["total"]
    assert "--pipeline-model-parallel-size 35" in found["launch"]["megatron"]


def launched(layout: Layout, **changes: object) -> dict:
    return launch(layout, SMALL, PlanSettings(**changes), length=64)


def test_recommended_training_settings_are_settings():
    from warmstart.training.settings import TrainSettings

    found = launched(Layout(data=8, stage=3, micro_batch=2, micro_batches=4, recompute="full"))
    settings = TrainSettings.parse({**found["train"], "max_steps": 1})
    assert (settings.per_device_train_batch_size, settings.gradient_accumulation_steps) == (2, 4)
    assert settings.gradient_checkpointing and settings.distributed == "fsdp2"
    alone = launched(Layout())
    assert "accelerate" not in alone and alone["program"] == "warmstart train"


@pytest.mark.parametrize(
    "layout",
    [
        Layout(data=8),
        Layout(data=8, stage=1),
        Layout(data=8, stage=2),
        Layout(data=8, stage=3),
        Layout(tensor=2, data=4, stage=3),
        Layout(tensor=4, data=2),
    ],
    ids=str,
)
def test_accelerate_reads_what_is_recommended(layout, tmp_path):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.parallelism_config import ParallelismConfig

    written = launched(layout)["accelerate"]
    file = tmp_path / "accelerate.yaml"
    file.write_text(yaml.safe_dump(written))
    read = load_config_from_file(str(file))  # unknown keys are an error there
    assert (read.num_processes, read.num_machines) == (8, 2)
    if layout.tensor > 1:
        sizes = {k.removeprefix("parallelism_config_"): v for k, v in written["parallelism_config"].items()}
        assert ParallelismConfig(**sizes).total_size == layout.devices
    if layout.stage >= 2:
        assert written["fsdp_config"]["fsdp_reshard_after_forward"] is (layout.stage == 3)


def test_pipelines_are_for_megatron():
    ramp = {"start": 4, "increment": 4, "tokens": 64 * 1000}
    found = launched(Layout(2, 2, 2, 1, 1, 4, "full"), ramp=ramp, precision="megatron")
    assert found["pipeline"] == {"schedule": "1F1B", "stages": 2, "n_microbatches": 4}
    flags = " ".join(found["megatron"])
    assert "--tensor-model-parallel-size 2" in flags and "--global-batch-size 8" in flags
    assert "--rampup-batch-size 4 4 1000" in flags and "--use-distributed-optimizer" in flags
    assert "train" not in found


def test_hardware_is_data_that_can_be_changed():
    for name, device in hardware_table().items():
        assert device.bfloat16 > device.float32 and device.bandwidth > device.link >= device.network, name
    changed = HardwareSettings.parse({"name": "a100-80gb", "memory_gb": 40, "tflops": 100}).resolve()
    assert (changed.memory_gb, changed.peak("bfloat16"), changed.network) == (40, 1e14, 25)
    assert HardwareSettings.model_validate("l4").resolve() == hardware_of("l4")
    with pytest.raises(UserError, match="did you mean 'a100-80gb'"):
        hardware_of("a100-80")


def test_this_machine_is_measured():
    import torch

    found = hardware_of("here")
    assert found is hardware_of("here"), "measured once"
    assert found.float32 > 1e-4 and found.memory_gb > 0.5
    assert found.devices_per_node == max(1, torch.cuda.device_count())
    if not torch.cuda.is_available():
        assert hardware_of("cpu").devices_per_node == 1
