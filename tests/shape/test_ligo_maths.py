"""A learned growth against sums written out, and its gradients against plain differentiation, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from anatomy_models import inputs_of
from ligo_models import EVEN, learned, stirred
from shape_models import logits
from torch.func import functional_call

from warmstart.anatomy import anatomy_of_model
from warmstart.foundation.settings import Settings
from warmstart.objectives.causal import Causal
from warmstart.shape.grow_learned import LearnedGrowth
from warmstart.shape.learned._through import through

TO = {"hidden": 48, "units": 13, "heads": 8, "layers": 5}


def matrices(found: LearnedGrowth) -> dict[str, torch.Tensor]:
    return {name: axis.matrix().detach() for name, axis in found.weights.growth.axes.items()}


@pytest.mark.parametrize("rows", ["new", "all"])
def test_ligo_of_a_decoder_with_grouped_heads(rows: str) -> None:
    to = {**TO, "heads": 16, "num_key_value_heads": 4}
    small, found = learned("llama-gqa-tied", to, growth={"name": "ligo", "rows": rows})
    found = stirred(found)
    growth, m = found.weights.growth, matrices(found)
    parts = {"q": "q_proj", "o": "o_proj", "v": "v_proj", "up": "up_proj", "down": "down_proj"}
    for layer in (0, 3):
        total = dict.fromkeys(parts, 0.0)
        for j in range(2):
            old = small.model.layers[j]
            g, r = m[f"g@decoder-{j}:o"], m[f"r@decoder-{j}:o"]
            q = old.self_attn.q_proj.weight.view(2, 2, 6, 24)
            v = old.self_attn.v_proj.weight.view(2, 6, 24)
            o = old.self_attn.o_proj.weight.view(24, 2, 2, 6)
            made = {
                "q": torch.einsum("Gg,Rr,Hh,greh->GReH", g, r, m["H:i"], q).reshape(96, 48),
                "v": torch.einsum("Gg,Hh,geh->GeH", g, m["H:i"], v).reshape(24, 48),
                "o": torch.einsum(
                    "Hh,Gg,Rr,hgre->HGRe", m["H:o"], m[f"g@decoder-{j}:i"], m[f"r@decoder-{j}:i"], o
                ).reshape(48, 96),
                "up": m[f"F@decoder-{j}:o"] @ old.mlp.up_proj.weight @ m["H:i"].T,
                "down": m["H:o"] @ old.mlp.down_proj.weight @ m[f"F@decoder-{j}:i"].T,
            }
            for part, value in made.items():
                home = "mlp" if part in ("up", "down") else "self_attn"
                weight = growth.depths[f"model-layers-{{l}}-{home}-{parts[part]}-weight"][layer, j]
                total[part] = total[part] + weight * value
        for part, name in parts.items():
            home = "mlp" if part in ("up", "down") else "self_attn"
            torch.testing.assert_close(
                growth.tensor(f"model.layers.{layer}.{home}.{name}.weight"), total[part]
            )
    rows_now = growth.tensor("model.embed_tokens.weight")
    torch.testing.assert_close(rows_now, small.model.embed_tokens.weight @ m["H:o"].T)
    torch.testing.assert_close(growth.tensor("model.norm.weight"), m["H:i"] @ small.model.norm.weight)
    gain = growth.depths["model-layers-{l}-input_layernorm-weight"][4]
    old = torch.stack([layer.input_layernorm.weight for layer in small.model.layers])
    torch.testing.assert_close(
        growth.tensor("model.layers.4.input_layernorm.weight"), m["H:o"] @ (gain @ old)
    )


def test_ligo_of_fused_queries_keys_and_values() -> None:
    small, found = learned("gpt2", TO, growth={"name": "ligo", "share": "stack"})
    growth, m = stirred(found).weights.growth, matrices(found)
    kind = "transformer-h-{l}-attn-c_attn-"
    old = [layer.attn.c_attn for layer in small.transformer.h]
    heads = m["h@decoder:o"]
    weight = sum(growth.depths[kind + "weight"][2, j] * old[j].weight for j in range(2)).view(24, 3, 4, 6)
    bias = sum(growth.depths[kind + "bias"][2, j] * old[j].bias for j in range(2)).view(3, 4, 6)
    made = torch.einsum("Hh,Nn,hkne->HkNe", m["H:i"], heads, weight).reshape(48, 144)
    torch.testing.assert_close(growth.tensor("transformer.h.2.attn.c_attn.weight"), made)
    made = torch.einsum("Nn,kne->kNe", heads, bias).reshape(144)
    torch.testing.assert_close(growth.tensor("transformer.h.2.attn.c_attn.bias"), made)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("variant", ["llama", "gpt2", "bert"])
def test_mango_is_its_ring(variant: str, rank: int) -> None:
    to = TO | ({"num_key_value_heads": 8} if variant == "llama" else {})
    small, found = learned(variant, to, growth={"name": "mango", "rank": rank})
    growth = stirred(found).weights.growth
    state, anatomy = dict(small.named_parameters()), anatomy_of_model(small)
    kinds = {
        "llama": {
            f"model.layers.{{l}}.self_attn.{x}_proj.weight": ("nehx", "o", "i") for x in "qkv"
        } | {"model.layers.{l}.self_attn.o_proj.weight": ("hnex", "i", "o")},
        "gpt2": {"transformer.h.{l}.attn.c_attn.weight": ("hxne", "o", "i"),
                 "transformer.h.{l}.attn.c_proj.weight": ("nehx", "i", "o")},
        "bert": {
            f"bert.encoder.layer.{{l}}.attention.self.{x}.weight": ("nehx", "o", "i")
            for x in ("query", "key", "value")
        } | {"bert.encoder.layer.{l}.attention.output.dense.weight": ("hnex", "i", "o")},
    }[variant]  # fmt: skip
    letters = {"n": (4, 8), "e": (6, 6), "h": (24, 48)}
    slots = {name: 3 if order == "hxne" else 1 for name, (order, _, _) in kinds.items()}
    order_of = [spec for spec in anatomy.tensors if "0" in spec and spec.replace("0", "{l}", 1) in kinds]
    stacked, place = [], {}
    for name in order_of:
        kind = name.replace("0", "{l}", 1)
        order, count = kinds[kind][0], slots[kind]
        place[kind] = range(len(stacked), len(stacked) + count)
        old = [state[kind.replace("{l}", str(j))] for j in range(2)]
        shape = [count if x == "x" else letters[x][0] for x in order]
        viewed = torch.stack([torch.einsum(f"{order}->xneh", w.reshape(shape)) for w in old], 1)
        stacked += list(viewed)
    ring = next(r for r in growth.rings.values() if len(r.slots) == 4)
    for kind, (order, units, hidden) in kinds.items():
        made = torch.einsum(
            "pBbq,qNnr,rLls,sHhp,blneh->BLNeH",
            ring.kinds, ring.units[units], ring.layers, ring.hidden[hidden], torch.stack(stacked),
        )  # fmt: skip
        for layer in (0, 4):
            mine = torch.einsum(f"xneh->{order}", made[list(place[kind]), layer])
            tensor = growth.tensor(kind.replace("{l}", str(layer)))
            torch.testing.assert_close(tensor, mine.reshape(tensor.shape), msg=kind)


@pytest.mark.parametrize("variant", ["llama", "gpt2", "bert", "t5"])
def test_mango_of_one_bond_that_mixes_no_kinds_is_ligo(variant: str) -> None:
    shared = {"name": "ligo", "share": "stack", "rows": "all"}
    to = {**TO, "layers": 2, **({"num_key_value_heads": 8} if variant == "llama" else {})}
    _, ligo = learned(variant, to, width=EVEN, growth=shared)
    _, mango = learned(variant, to, width=EVEN, growth="mango")
    one, other = stirred(ligo).weights.growth, mango.weights.growth
    with torch.no_grad():
        for key, axis in other.axes.items():
            axis.rows.copy_(one.axes[key].rows)
        for key, ring in other.rings.items():
            stack, _, axes = key.partition(":")
            (letter,) = set(axes) - {"e", "d"}
            for role, core in ring.units.items():
                core[0, :, :, 0] = one.axes[f"{letter}@{stack}:{role}"].rows
            for role, core in ring.hidden.items():
                core[0, :, :, 0] = one.axes[f"H:{role}"].rows
    for name in one.names:
        torch.testing.assert_close(other.tensor(name), one.tensor(name), msg=name)


@pytest.mark.parametrize("growth", ["ligo", {"name": "mango", "rank": 2}])
@pytest.mark.parametrize("variant", ["llama-gqa-tied", "gpt2", "qwen3", "gpt_neox"])
def test_gradients_reach_the_growth_and_nothing_else(variant: str, growth: Any) -> None:
    small, found = learned(variant, TO, growth=growth)
    model, inner = stirred(found).model.double(), found.weights.growth
    held = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    asked = through(Causal(Settings(), None), found.weights)  # type: ignore[arg-type]
    batch = asked.collate(torch.randint(4, 23, (2, 9)).numpy(), None)  # type: ignore[arg-type]
    assert asked.companions(model) is inner and not any(p.requires_grad for p in model.parameters())
    loss, count = asked.loss(model, batch, inner)
    loss.backward()
    ours = {name: p.grad.clone() for name, p in inner.named_parameters()}
    assert int(count) == 16 and all(grad.abs().max() > 0 for grad in ours.values())
    assert all(p.grad is None for p in [*model.parameters(), *small.parameters()])
    assert all(torch.equal(small.state_dict()[name], tensor) for name, tensor in held.items())
    inner.zero_grad()
    names = {n: s.tied_to or s.name for n, s in anatomy_of_model(model).match(model.state_dict()).items()}
    plain = {n: inner.tensor(names[n]) for n, _ in model.named_parameters()}
    out = functional_call(model, plain, (), {"input_ids": batch["input_ids"]}).logits[:, :-1]
    torch.nn.functional.cross_entropy(
        out.reshape(-1, out.shape[-1]), batch["input_ids"][:, 1:].reshape(-1), reduction="sum"
    ).backward()
    for name, parameter in inner.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-7, atol=1e-9, msg=name)


WRITTEN = ["llama-gqa-tied", "llama-biases-head_dim", "qwen3", "gpt2", "gpt_neox", "bert", "t5-v1.1"]


@pytest.mark.parametrize("growth", ["ligo", "mango"])
@pytest.mark.parametrize("variant", WRITTEN)
def test_what_is_written_computes_what_was_trained(variant: str, growth: Any, tmp_path: Any) -> None:
    small, found = learned(variant, {"hidden": 48, "units": 13, "layers": 3}, growth=growth)
    model, weights = stirred(found).model, found.weights
    inputs = inputs_of(small)
    with torch.no_grad():
        handed = weights.differentiable(model)
        wanted = functional_call(model, handed, (), inputs).logits
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    weights.write(model)
    model.save_pretrained(tmp_path)
    opened = type(model).from_pretrained(tmp_path, dtype=torch.float64, attn_implementation="eager").eval()
    assert not any(torch.isnan(p).any() for p in opened.parameters())
    with torch.no_grad():
        error = float((opened(**inputs).logits - wanted).abs().max())
    assert error < 1e-10
    assert float((logits(opened, inputs) - logits(small, inputs)).abs().max()) > 1e-3


def test_operations_are_counted_as_products() -> None:
    _, found = learned("llama", {"hidden": 48})
    growth = found.weights.growth
    names = set(growth.names)
    expected = 0.0
    for name in names:
        old = growth.small(name)
        dims = [1 for d in growth.start.old.tensors[name].factors if d.group == "H"]
        assert len(dims) == 1
        expected += 2 * 24 * old.numel() * 3  # made, made once more, and the gradient of 24 new rows
    assert found.weights.flops == expected
