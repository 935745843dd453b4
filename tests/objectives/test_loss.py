"""Losses of objectives equal those of transformers for every family; the package stays light to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_language_models import FAMILIES, TEXT, model_for, tokenizer_for

from warmstart.objectives import LossModule, objectives

OBJECTIVE = {"causal": "causal", "masked": "masked", "seq2seq": "span"}
ALL = [(OBJECTIVE[task], family) for task, families in FAMILIES.items() for family in families]


def prepared(name: str, family: str) -> tuple[Any, Any, dict[str, torch.Tensor]]:
    tokenizer = tokenizer_for(family)
    entry = objectives.get(name)
    objective = entry.target(entry.settings.parse({}), tokenizer)
    ids = tokenizer(" ".join(TEXT * 2), add_special_tokens=False)["input_ids"][:120]
    batch = objective.collate(np.array(ids).reshape(3, 40), np.random.default_rng(0))
    return objective, model_for(family, len(tokenizer)), batch


@pytest.mark.parametrize(("name", "family"), ALL)
def test_loss_and_gradients_equal_those_of_transformers(name: str, family: str) -> None:
    objective, model, batch = prepared(name, family)
    total, count = objective.loss(model, batch)
    (total / count).backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    expected = model(**batch).loss  # transformers takes it in float32
    expected.backward()
    assert (total / count).item() == pytest.approx(expected.item(), rel=1e-6)
    for n, parameter in model.named_parameters():
        if parameter.grad is not None:
            difference = (grads[n] - parameter.grad).norm()
            assert difference <= 1e-5 * parameter.grad.norm() + 1e-8, n


@pytest.mark.parametrize(
    ("name", "task"), [("causal", "CausalLM"), ("masked", "MaskedLM"), ("span", "Seq2SeqLM")]
)
def test_auto_class(name: str, task: str) -> None:
    entry = objectives.get(name)
    assert entry.target(entry.settings.parse({}), None).auto_class == f"AutoModelFor{task}"


def test_causal_counts_all_but_the_first_token() -> None:
    objective, model, batch = prepared("causal", "llama")
    _, count = objective.loss(model, batch)
    assert count.item() == 3 * 39
    assert batch["input_ids"].equal(batch["labels"])


def test_passes_add_up() -> None:
    """Sums over parts of a batch are the sum over the batch, unlike means."""
    objective, model, batch = prepared("masked", "bert")
    whole = objective.loss(model, batch)
    parts = [objective.loss(model, {k: v[i : i + 1] for k, v in batch.items()}) for i in range(3)]
    for k in range(2):
        torch.testing.assert_close(sum(part[k] for part in parts), whole[k])


def test_module_holds_the_model() -> None:
    objective, model, batch = prepared("causal", "gpt2")
    module = LossModule(model, objective)
    torch.testing.assert_close(module(batch)[0], objective.loss(model, batch)[0])
    assert {n.removeprefix("model.") for n, _ in module.named_parameters()} == dict(
        model.named_parameters()
    ).keys()


def test_gradient_checkpointing_and_frozen_rows() -> None:
    objective, model, batch = prepared("causal", "llama")
    objective.loss(model, batch)[0].backward()
    expected = model.model.layers[0].mlp.up_proj.weight.grad.clone()
    model.zero_grad()
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.get_input_embeddings().weight.requires_grad_(False)
    objective.loss(model, batch)[0].backward()
    torch.testing.assert_close(model.model.layers[0].mlp.up_proj.weight.grad, expected)
    assert model.get_input_embeddings().weight.grad is None


def test_registry_does_not_import_torch() -> None:
    code = (
        "import sys; from warmstart.objectives import objectives; import warmstart.evaluation; "
        "[objectives.get(n).settings.parse({}) for n in objectives.names()]; "
        "sys.exit(bool({'torch', 'transformers', 'scipy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


_WORKER = Path(__file__).parent / "distributed_worker.py"


def test_two_processes_give_the_loss_of_one(tmp_path: Path) -> None:
    """Loss and gradients of a tied model with DDP and with FSDP2, half of the batch on each process."""
    workers = [subprocess.Popen([sys.executable, str(_WORKER), str(tmp_path), str(r)]) for r in range(2)]
    assert [worker.wait(timeout=240) for worker in workers] == [0, 0]
    found = torch.load(tmp_path / "result.pt", weights_only=True)
    assert len(found["alone"]) == 4
    for kind in ("ddp", "fsdp2"):
        assert found[kind] == pytest.approx(found["alone"], rel=1e-10)
