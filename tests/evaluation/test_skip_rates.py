"""Shares of tokens and operations of a model with skip routers, against counts by hand."""

from __future__ import annotations

import pytest
import torch
from tiny_language_models import model_for, tokenizer_for

from warmstart.anatomy import anatomy_of_model
from warmstart.checkpoint.forms.skip import routers
from warmstart.evaluation.skip_rates import skip_rates
from warmstart.foundation.errors import UserError
from warmstart.shape.skip import SkipSettings, attach

TEXTS = ["the cat sat on the mat and looked at the dog", "dogs and cats " * 9]


def test_rates_and_operations_are_those_counted_by_hand() -> None:
    tokenizer = tokenizer_for("llama")
    model = model_for("llama", len(tokenizer)).float()
    attach(model, SkipSettings(density=0.5, router_std=1.0, bias=0.0))
    found = skip_rates(model.train(), tokenizer, TEXTS, context_length=9, counted=100)
    assert model.training and model.config._attn_implementation == "sdpa"

    anatomy = anatomy_of_model(model)
    width, kv = anatomy.sizes["H"], anatomy.sizes["g"] * anatomy.sizes["e"]
    attended = anatomy.sizes["g"] * anatomy.sizes["r"] * anatomy.sizes["e"]
    units, vocab, layers = anatomy.sizes["F"], len(tokenizer), anatomy.layers["decoder"]
    windows = []
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        windows += [ids[start : start + 9] for start in range(0, len(ids), 9)]
    through: list[torch.Tensor] = []
    for _, router in routers(model.eval()):
        router.register_forward_hook(lambda m, i, o: through.append(o[0]))
    went, spent, whole = [0] * layers, 0, 0

    def block(tokens: int, keys: int, length: int) -> int:
        """Queries, output, gate, up, down and scores of tokens; keys and values of all."""
        own = 2 * tokens * (2 * width * attended + 3 * width * units) + 4 * tokens * keys * attended
        return own + 2 * length * 2 * width * kv

    for ids in windows:
        through.clear()
        with torch.no_grad():
            model(input_ids=torch.tensor([ids]))
        n = len(ids)
        fixed = 2 * n * width * vocab + layers * 2 * n * 2 * width
        counts = [int(z.sum()) for z in through]
        went = [a + b for a, b in zip(went, counts)]
        spent += fixed + sum(block(m, n, n) for m in counts)
        whole += fixed + layers * block(n, n, n)
    total = sum(map(len, windows))
    assert found.tokens == total and found.rates == pytest.approx([n / total for n in went])
    assert 0 < found.density < 1 and found.density == pytest.approx(sum(went) / layers / total)
    assert found.lowest == min(found.rates) and found.highest == max(found.rates)
    assert found.gap == pytest.approx(sum(abs(rate - 0.5) for rate in found.rates) / layers)
    assert found.flops_share == pytest.approx(spent / whole, rel=0.01)  # rotations are matrix products here


def test_without_routers_everything_goes_through() -> None:
    tokenizer = tokenizer_for("llama")
    model = model_for("llama", len(tokenizer)).float()
    found = skip_rates(model, tokenizer, TEXTS)
    assert (found.density, found.flops_share, found.gap) == (1.0, 1.0, 0.0)
    with pytest.raises(UserError, match="no text"):
        skip_rates(model, tokenizer, [""])
