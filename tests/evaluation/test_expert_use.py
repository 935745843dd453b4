"""Loads, entropy and balance of a mixture's experts against a count by hand, one text at a time."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_language_models import model_for, tokenizer_for

from warmstart.evaluation.expert_use import expert_use
from warmstart.foundation.errors import UserError
from warmstart.recipes.runner import Runner

TEXTS = ["the cat sat on the mat and looked at the dog", "a", "", "dogs and cats " * 9]


def mixture(vocab: int, **changes: Any) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2}
    shape |= {"moe_intermediate_size": 8, "num_experts": 5, "num_experts_per_tok": 2, "head_dim": 8}
    config = transformers.Qwen3MoeConfig(
        vocab_size=vocab, **shape, mlp_only_layers=[1], experts_implementation="eager", **changes
    )
    return transformers.Qwen3MoeForCausalLM(config).eval()


def by_hand(model: Any, tokenizer: Any, context: int) -> tuple[list[list[int]], float, int]:
    counts, certain, total = [[0] * 5, [0] * 5], 0.0, 0
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"] if text else []
        for start in range(0, len(ids), context):
            window = torch.tensor([ids[start : start + context]])
            with torch.no_grad():
                found = model(input_ids=window, output_router_logits=True).router_logits
            total += window.numel()
            for layer, scores in enumerate(found):
                for row in scores.tolist():
                    best = sorted(range(5), key=lambda x: -row[x])[:2]
                    for expert in best:
                        counts[layer][expert] += 1
                    certain += math.exp(max(row)) / sum(map(math.exp, row)) / 2
    return counts, certain / total, total


@pytest.mark.parametrize(("context", "rows"), [(512, 8), (7, 2)])
def test_it_is_a_count_by_hand(context: int, rows: int) -> None:
    tokenizer = tokenizer_for("llama")
    model = mixture(len(tokenizer))
    with torch.no_grad():
        model.model.layers[0].mlp.gate.weight[4] = -model.model.layers[0].mlp.gate.weight[:4].sum(0) * 50
        model.model.layers[2].mlp.gate.weight *= 30
    counts, certainty, total = by_hand(model, tokenizer, context)
    found = expert_use(model.train(), tokenizer, TEXTS, context_length=context, rows=rows)
    assert model.training and found.tokens == total
    loads = [[n / sum(layer) for n in layer] for layer in counts]
    for mine, hand in zip(found.loads, loads, strict=True):
        assert mine == pytest.approx(hand, abs=1e-9)
    entropies = [-sum(p * math.log(p) for p in layer if p) / math.log(5) for layer in loads]
    assert found.entropy == pytest.approx(sum(entropies) / 2)
    assert found.lowest_entropy == pytest.approx(min(entropies)) and min(entropies) < 0.99
    assert found.unused == sum(n == 0 for layer in counts for n in layer) / 10
    assert found.busiest == pytest.approx(5 * max(map(max, loads)))
    assert found.idlest == pytest.approx(5 * min(map(min, loads)))
    assert found.certainty == pytest.approx(certainty, abs=1e-6)


def test_balance_is_the_training_loss_over_the_experts_of_a_token() -> None:
    tokenizer = tokenizer_for("llama")
    model = mixture(len(tokenizer))
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        loss = float(model(input_ids=ids, output_router_logits=True).aux_loss)
    found = expert_use(model, tokenizer, TEXTS[:1])
    assert 2 * found.balance == pytest.approx(loss, rel=1e-5)


def test_a_step_measures_mixtures_and_dense_models(tmp_path: Path) -> None:
    from warmstart.checkpoint import Lineage, save_checkpoint

    tokenizer = tokenizer_for("llama")
    dense = model_for("llama", len(tokenizer)).float()
    with pytest.raises(UserError, match="no text"):
        expert_use(mixture(len(tokenizer)), tokenizer, [""])
    save_checkpoint(tmp_path / "m", mixture(len(tokenizer)), tokenizer, lineage=Lineage.of("test"))
    save_checkpoint(tmp_path / "d", dense, tokenizer, lineage=Lineage.of("test"))
    (tmp_path / "text.txt").write_text("\n\n".join(TEXTS * 5))
    runner, shared = Runner(tmp_path / "cache"), {"corpus": str(tmp_path / "text.txt"), "eval_split": "all"}
    out = runner.step("expert-usage", {"source": str(tmp_path / "m"), **shared})
    found = json.loads((out / "expert-usage.json").read_text())
    assert found["experts"] == 5 and 0 < found["entropy"] <= 1 and found["tokens"] > 50
    out = runner.step("expert-usage", {"source": str(tmp_path / "d"), **shared})
    found = json.loads((out / "expert-usage.json").read_text())
    assert (found["experts"], found["entropy"], found["unused"], found["tokens"]) == (1, 1.0, 0.0, 0)
