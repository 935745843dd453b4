"""FLOPs of training against torch's counter of what really runs."""

import numpy as np
import pytest
import training_tiny as tiny
from torch.utils.flop_counter import FlopCounterMode
from transformers import OPTConfig, OPTForCausalLM

from warmstart.training.loop import flops_per_token, make_objective

ROWS = 64


@pytest.mark.parametrize(("kind", "tolerance"), [("llama", 0.0), ("t5", 0.0), ("bert", 0.1)])
def test_flops_are_those_that_run(kind: str, tolerance: float) -> None:
    """Forward and backward of a batch; BERT's share of masked tokens is only expected, not exact."""
    model = tiny.MODELS[kind]()
    model.set_attn_implementation("eager")  # torch does not count its fused attention on CPUs
    objective = make_objective(model, tiny.byte_tokenizer(), tiny.settings())
    batch = objective.collate(tiny.ArrayBlocks(ROWS).ids, np.random.default_rng(0))
    objective.loss(model, batch)  # finds out what the head does, which costs operations once
    with FlopCounterMode(display=False) as counter:
        objective.loss(model, batch)[0].backward()
    expected = flops_per_token(model, objective, tiny.LENGTH) * ROWS * tiny.LENGTH
    assert counter.get_total_flops() == pytest.approx(expected, rel=max(tolerance, 1e-12))


def test_family_without_table_counts_six_per_parameter() -> None:
    size = len(tiny.byte_tokenizer())
    model = OPTForCausalLM(
        OPTConfig(vocab_size=size, hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2)
    )
    objective = make_objective(model, tiny.byte_tokenizer(), tiny.settings())
    assert flops_per_token(model, objective, 24) == 6 * sum(p.numel() for p in model.parameters())
