"""Token losses without full logits equal those of the model's own logits, for every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_language_models import FAMILIES, model_for
from torch.nn import functional as F

from warmstart.evaluation.head import head_of, token_losses

VOCAB = 97
ALL = [(task, family) for task, families in FAMILIES.items() for family in families]


def batch(task: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    ids, targets = (torch.randint(4, VOCAB, (3, 12), generator=draw) for _ in range(2))
    targets[0, :7] = targets[2, 11] = -100
    inputs = {"input_ids": ids}
    if task == "seq2seq":
        inputs["decoder_input_ids"] = torch.randint(4, VOCAB, (3, 12), generator=draw)
    return inputs, targets


def reference(model: Any, inputs: Any, targets: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = F.cross_entropy(model(**inputs).logits.flatten(0, 1), targets.flatten(), reduction="sum")
    names = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(names.values()), allow_unused=True)
    return loss, {name: grad for name, grad in zip(names, found) if grad is not None}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("task", "family"), ALL)
def test_equal_to_full_logits(task: str, family: str, tied: bool) -> None:
    model = model_for(family, VOCAB, tied=tied)
    inputs, targets = batch(task)
    expected, expected_grads = reference(model, inputs, targets)
    total, losses = token_losses(model, inputs, targets)
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-10)
    assert losses.shape == (int((targets != -100).sum()),)
    total.backward()
    for name, grad in expected_grads.items():
        found = dict(model.named_parameters())[name].grad
        torch.testing.assert_close(found, grad, rtol=1e-9, atol=1e-10, msg=name)
    assert (head_of(model, inputs).linear is None) == (family == "bart")


def test_known_transformations_are_recognised() -> None:
    inputs, _ = batch("causal")
    assert head_of(model_for("llama", VOCAB), inputs).plain
    assert head_of(model_for("gemma2", VOCAB), inputs).softcap == 5.0
    assert head_of(model_for("cohere", VOCAB), inputs).scale == 0.3
    assert head_of(model_for("granite", VOCAB), inputs).scale == 0.25


@pytest.mark.parametrize("family", ["cohere", "granite", "gemma2"])
def test_transformed_heads_with_a_bias(family: str) -> None:
    model = model_for(family, VOCAB, tied=False)
    model.set_output_embeddings(torch.nn.Linear(32, VOCAB, bias=True, dtype=torch.float64))
    inputs, targets = batch("causal")
    total, _ = token_losses(model, inputs, targets)
    torch.testing.assert_close(total, reference(model, inputs, targets)[0], rtol=1e-10, atol=1e-10)
    assert head_of(model, inputs).linear is not None


def test_a_head_of_zeros_hides_no_transformation() -> None:
    model = model_for("gemma2", VOCAB)
    model.get_output_embeddings().weight.data.zero_()
    assert head_of(model, batch("causal")[0]).softcap == 5.0


class _Adapted(torch.nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) ** 3


def test_unknown_heads_fall_back() -> None:
    """An adapter on the head, and arithmetic after it that no config declares."""
    inputs, targets = batch("causal")
    adapted = model_for("llama", VOCAB, tied=False)
    layer = _Adapted(32, VOCAB, bias=False, dtype=torch.float64)
    adapted.set_output_embeddings(layer)
    altered = model_for("llama", VOCAB)
    own = altered.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        out = own(*args, **kwargs)
        out.logits = out.logits.sin()
        return out

    altered.forward = forward
    for model in (adapted, altered):
        assert head_of(model, inputs).linear is None
        total, _ = token_losses(model, inputs, targets)
        torch.testing.assert_close(total, reference(model, inputs, targets)[0])


def test_replaced_head_is_probed_again() -> None:
    model = model_for("llama", VOCAB, tied=False)
    inputs, targets = batch("causal")
    token_losses(model, inputs, targets)
    model.resize_token_embeddings(VOCAB + 8)
    total, _ = token_losses(model, inputs, targets)
    torch.testing.assert_close(total, reference(model, inputs, targets)[0])


def test_probe_leaves_no_trace() -> None:
    """Exact resume depends on it: dropout draws the same whether or not the head is known already."""
    model = model_for("gpt2", VOCAB).train()
    inputs, targets = batch("causal")
    torch.manual_seed(0)
    first, _ = token_losses(model, inputs, targets)
    torch.manual_seed(0)
    second, _ = token_losses(model, inputs, targets)
    assert first.item() == second.item()
    assert "forward" not in vars(model.lm_head)
    assert all(p.grad is None for p in model.parameters())


def test_bf16_autocast_is_close() -> None:
    model = model_for("llama", VOCAB).float()
    inputs, targets = batch("causal")
    exact, _ = token_losses(model, inputs, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = token_losses(model, inputs, targets)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=2e-2)
    assert rounded.item() != exact.item()


def test_token_weights() -> None:
    model = model_for("llama", VOCAB)
    inputs, targets = batch("causal")
    weights = torch.rand(targets.shape, dtype=torch.float64)
    total, losses = token_losses(model, inputs, targets, token_weights=weights)
    torch.testing.assert_close(total, (losses * weights[targets != -100]).sum())


def test_data_parallel_wrapper(tmp_path: Any) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = model_for("llama", VOCAB)
        inputs, targets = batch("causal")
        expected, grads = reference(model, inputs, targets)
        total, _ = token_losses(torch.nn.parallel.DistributedDataParallel(model), inputs, targets)
        total.backward()
        torch.testing.assert_close(total, expected)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, grads[name])
    finally:
        dist.destroy_process_group()
