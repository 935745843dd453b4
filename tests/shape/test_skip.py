"""Skip routers: exact at the start, gathered equals masked, with a cache or not, gradients by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from anatomy_models import build, float64_throughout, inputs_of

from warmstart.anatomy import anatomy_of_model
from warmstart.checkpoint.forms import note_of
from warmstart.checkpoint.forms.skip import Skipping, routers
from warmstart.foundation.errors import UserError
from warmstart.objectives._penalty import penalty_of
from warmstart.shape.skip import SkipSettings, attach, detach

DECODERS = [
    "llama",
    "llama-biases-head_dim",
    "mistral",
    "qwen2-tied",
    "qwen3",
    "gpt2",
    "gpt_neox",
    "gpt_neox-sequential-tied",
    "mixtral",
    "olmoe",
    "qwen2_moe",
    "qwen3_moe",
]


def routed(variant: str, *, std: float = 0.0, bias: float = 3.0, **settings: Any) -> Any:
    """A model whose routers skip about half of the tokens where std > 0 and bias = 0."""
    model = build(variant)
    attach(model, SkipSettings(router_std=std, bias=bias, **settings))
    return model


def run(model: Any, **inputs: Any) -> torch.Tensor:
    with torch.no_grad(), float64_throughout(model):
        return model(**inputs).logits


@pytest.mark.parametrize("variant", DECODERS)
def test_a_fresh_router_changes_nothing(variant: str) -> None:
    dense, model = build(variant), routed(variant)
    assert torch.equal(run(dense, **inputs_of(dense)), run(model, **inputs_of(dense)))
    assert anatomy_of_model(model).sizes == anatomy_of_model(dense).sizes
    note = note_of(model)
    assert note is not None and note["form"] == "skip" and len(note["blocks"]) == 2
    detach(model)
    assert type(model) is type(dense) and model.state_dict().keys() == dense.state_dict().keys()
    assert not any(isinstance(module, Skipping) for module in model.modules()) and note_of(model) is None


def by_hand(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Logits where every block computes all tokens and a hook puts back the states of those that skip."""
    shares: list[torch.Tensor] = []
    hooks = []
    for _, block in [(n, m) for n, m in model.named_modules() if isinstance(m, Skipping)]:
        block.skip_router.gathers = False
        kind = type(block)
        block.__class__ = kind.__mro__[2]

        def put_back(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
            x, router = args[0], module.skip_router
            lead = (x @ router.weight.T + router.bias) @ torch.tensor([-1.0, 1.0], dtype=x.dtype)
            shares.append(lead >= 0)
            return torch.stack(
                [torch.stack([o if go else i for o, i, go in zip(*row)]) for row in zip(output, x, lead >= 0)]
            )

        hooks.append((block, kind, block.register_forward_hook(put_back)))
    found = run(model, **inputs)
    for block, kind, hook in hooks:
        hook.remove()
        block.__class__ = kind
        block.skip_router.gathers = True
    return found, shares


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", DECODERS)
def test_gathered_tokens_give_what_masked_ones_do(variant: str, attention: str) -> None:
    model = routed(variant, std=1.0, bias=0.0)
    model.set_attn_implementation(attention)
    inputs = inputs_of(model)
    expected, shares = by_hand(model, inputs)
    rates = torch.stack([share.double().mean() for share in shares])
    assert 0 < float(rates.mean()) < 1 and len({int(n) for n in shares[0].sum(1)} | {-1}) > 1
    torch.testing.assert_close(run(model, **inputs), expected, rtol=1e-9, atol=1e-9)
    padded = torch.ones(2, 7, dtype=torch.int64)
    padded[0, :3] = 0
    expected, _ = by_hand(model, {**inputs, "attention_mask": padded})
    found = run(model, **inputs, attention_mask=padded)
    torch.testing.assert_close(found[padded.bool()], expected[padded.bool()], rtol=1e-9, atol=1e-9)
    for _, router in routers(model):  # nobody goes through anywhere
        torch.nn.init.zeros_(router.weight)
        torch.nn.init.constant_(router.bias[:1], 1.0)
    torch.testing.assert_close(run(model, **inputs), by_hand(model, inputs)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", ["llama", "qwen3", "gpt2", "gpt_neox", "mixtral"])
def test_token_by_token_with_a_cache_is_the_whole_text(variant: str) -> None:
    """So decisions are causal, and skipped tokens have left their keys and values in the cache."""
    model = routed(variant, std=1.0, bias=0.0)
    ids = inputs_of(model)["input_ids"]
    whole = run(model, input_ids=ids)
    cache, rows = None, []
    with torch.no_grad(), float64_throughout(model):
        for part in (ids[:, :3], *ids[:, 3:].split(1, dim=1)):
            out = model(input_ids=part, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            rows.append(out.logits)
    assert cache is not None and cache.get_seq_length() == 7
    torch.testing.assert_close(torch.cat(rows, 1), whole, rtol=1e-9, atol=1e-9)
    without = model.model.layers[1] if hasattr(model, "model") else None
    if without is not None:  # the values of a skipped token matter to later ones
        with torch.no_grad():
            without.self_attn.v_proj.weight.mul_(1.5)
        assert not torch.allclose(run(model, input_ids=ids), whole)


def test_training_is_hard_forward_and_soft_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    model = routed("llama", std=0.3, bias=0.5, temperature=0.7).train()
    x = torch.randn(2, 5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    block: Any = model.model.layers[0]
    noise = torch.rand(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr(torch, "rand_like", lambda _: noise)
    places = torch.arange(5)[None]
    rest = {"attention_mask": None, "position_embeddings": model.model.rotary_emb(x, places)}
    y = block(x, **rest)
    goal = torch.randn(2, 5, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    (y * goal).sum().backward()

    router = block.skip_router
    inner = super(Skipping, block).forward(x, **rest)
    lead = (x @ router.weight.T + router.bias).diff(dim=-1)[..., 0]
    p = ((lead + noise.log() - (1 - noise).log()) / 0.7).sigmoid()
    z = (p >= 0.5).double()
    assert 0 < z.mean() < 1
    torch.testing.assert_close(y, z[..., None] * inner + (1 - z[..., None]) * x)
    slope = ((inner - x) * goal).sum(-1) * p * (1 - p) / 0.7  # dL/dz times dp/d lead
    grad = torch.stack([-slope, slope], -1).flatten(0, 1).T @ x.flatten(0, 1)
    torch.testing.assert_close(router.weight.grad, grad.detach())


def test_the_loss_is_on_the_share_of_tokens_with_text() -> None:
    model = routed("llama", std=0.5, bias=0.2, density=0.25, anneal=0.5, weight=0.3).train()
    penalty = penalty_of(model)
    assert penalty is not None and penalty.weight == 0.3 and penalty.name == "skip_loss"
    seen: list[Any] = []
    for _, router in routers(model):
        router.register_forward_hook(lambda m, i, o: seen.append(o))
    reading = torch.ones(2, 7, dtype=torch.bool)
    reading[1, 4:] = False
    for progress, target in ((0.0, 1.0), (0.25, 0.625), (0.5, 0.25), (0.9, 0.25)):
        seen.clear()
        penalty.at(progress)
        with penalty.watching():
            model(**inputs_of(model))
        found = penalty.value(reading)
        assert found is not None and found.requires_grad
        hand = sum((float(through[reading].double().mean()) - target) ** 2 for through, _ in seen)
        assert float(found.detach()) == pytest.approx(hand, abs=1e-12)
    rates = [through[reading].double().mean() for through, _ in seen]
    (grad,) = torch.autograd.grad(found, seen[1][1])
    assert grad[1, 5] == 0 and float(grad[0, 0]) == pytest.approx(2 * float(rates[1] - 0.25) / 11)
    assert penalty_of(routed("llama", routing="random")) is None


def test_random_routing_has_its_density() -> None:
    model = routed("llama", routing="random", density=0.3)
    _, router = next(routers(model))
    x = torch.randn(4, 500, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    through, _ = router(x)
    assert abs(float(through.double().mean()) - 0.3) < 0.05
    assert torch.equal(through, router.train()(x)[0]) and not router.weight.requires_grad


def test_what_cannot_skip_is_said() -> None:
    for variant in ("bert", "t5", "vit"):
        with pytest.raises(UserError, match="cannot be skipped token by token"):
            attach(build(variant), SkipSettings())
    with pytest.raises(UserError, match="no skip routers"):
        detach(build("llama"))
    model = routed("gpt2", std=1.0)
    with pytest.raises(UserError, match="go around 2 blocks"):
        detach(model)
    assert detach(model, anyway=True)["function"].startswith("changed")
    model = routed("gpt2", density=0.5)
    assert attach(model, SkipSettings(density=0.25, anneal=0.0))["function"] == "unchanged"
    assert [router.options["density"] for _, router in routers(model)] == [0.25, 0.25]
    with pytest.raises(UserError, match="its routers are learned"):
        attach(model, SkipSettings(routing="random"))


def test_it_is_saved_trained_and_opened(tmp_path: Path) -> None:
    from tiny_language_models import model_for, tokenizer_for

    from warmstart.checkpoint import Lineage, resolve, save_checkpoint
    from warmstart.recipes.runner import Runner

    tokenizer = tokenizer_for("llama")
    dense = model_for("llama", len(tokenizer)).float()
    save_checkpoint(tmp_path / "dense", dense, tokenizer, lineage=Lineage.of("test"))
    runner = Runner(tmp_path / "cache")
    out = runner.step(
        "skip", {"source": str(tmp_path / "dense"), "density": 0.5, "anneal": 0.0, "weight": 5.0}
    )
    ids = torch.arange(3, 23).reshape(2, 10)
    with torch.no_grad():
        before, after = dense(input_ids=ids).logits, resolve(out).load_model()(input_ids=ids).logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    (tmp_path / "text.txt").write_text("\n\n".join(f"the cat sat on mat {n} and more" for n in range(400)))
    shared = {"corpus": str(tmp_path / "text.txt"), "block_size": 16, "learning_rate": 0.02}
    trained = runner.step("train", {"source": str(out), **shared, "max_steps": 40, "eval_max_bytes": 500})
    log = (next((trained.parent / "run").glob("events.jsonl"))).read_text()
    assert '"skip_loss"' in log
    model = resolve(trained).load_model()
    through = []
    for _, router in routers(model):
        router.register_forward_hook(lambda m, i, o: through.append(o[0]))
    with torch.no_grad():
        model(input_ids=ids)
    assert 0 < float(torch.stack(through).float().mean()) < 0.95
    measured = runner.step(
        "skip-rates", {"source": str(trained), "corpus": shared["corpus"], "eval_split": "all"}
    )
    found = json.loads((measured / "skip-rates.json").read_text())
    assert 0 < found["density"] < 0.99 and 0.1 < found["flops_share"] < 1
    with pytest.raises(UserError, match="no ordinary checkpoint can say"):
        runner.step("export", {"source": str(trained)})
    plain = runner.step("export", {"source": str(out)})
    with torch.no_grad():
        again = resolve(plain).load_model()(input_ids=ids).logits
    torch.testing.assert_close(again, before, rtol=0, atol=1e-6)
