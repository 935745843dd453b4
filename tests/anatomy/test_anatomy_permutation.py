"""The proof that roles and groups are right: permuting a group everywhere leaves the function unchanged.

And that no member is superfluous: leaving any one of them out changes the function.
"""

from __future__ import annotations

import torch
from anatomy_models import MIXTURES, build, float64_throughout, inputs_of, layouts, stored, variants

from warmstart.anatomy import AxisGroup, anatomy_of_model

KEY_BIASES = tuple(f"attention.{name}.bias" for name in ("self.key", "attention.key", "k_proj"))
"""Without rotation the softmax cancels them."""
INDICES = {"V": ("input_ids", "decoder_input_ids"), "P": ("position_ids",), "S": ("token_type_ids",)}
"""Inputs that are indices of an axis."""


def logits(model, inputs):
    with torch.no_grad(), float64_throughout(model):
        return model(**inputs).logits


def permute(model, anatomy, group: AxisGroup, order: torch.Tensor, skip: object = None) -> dict:
    """Permute the members of a group in place through view and unview; returns what was there before."""
    tensors = stored(model, anatomy.layout)
    tensors = {anatomy.spec(name).tied_to or anatomy.spec(name).name: t for name, t in tensors.items()}
    before = {}
    for index, member in enumerate(group.members):
        if skip in (index, anatomy.spec(member.tensor).template) or member.tensor not in tensors:
            continue
        tensor = tensors[member.tensor]
        before.setdefault(member.tensor, tensor.clone())
        if member.dim is None:  # the whole tensor is one entry: another expert's takes its place
            (source,) = [
                other.tensor
                for other in group.members
                if other.entry == order[member.entry]
                and anatomy.spec(other.tensor).template == anatomy.spec(member.tensor).template
            ]
            tensor.copy_(before.get(source, tensors[source]))
            continue
        viewed = anatomy.view(member.tensor, tensor.clone())
        if member.at is None:
            viewed = viewed.index_select(member.dim, order)
        else:
            part = viewed.select(*member.at)
            part.copy_(part.index_select(member.dim - (member.at[0] < member.dim), order))
        tensor.copy_(anatomy.unview(member.tensor, viewed))
    return {name: (tensors[name], old) for name, old in before.items()}


def restore(changed: dict) -> None:
    for tensor, old in changed.values():
        tensor.copy_(old)


def translated(inputs: dict, group: AxisGroup, order: torch.Tensor) -> dict:
    """The same input in the permuted model's own indices."""
    inverse = torch.argsort(order)
    changed = {key: inverse[inputs[key]] for key in INDICES.get(group.name, ()) if key in inputs}
    if group.name == "E":
        changed["encoder_hidden_states"] = inputs["encoder_hidden_states"][..., order]
    return {**inputs, **changed}


def dead(name: str) -> bool:
    """Parameters that never change the output: key biases and the second bias of an untied BERT head."""
    return name.endswith(KEY_BIASES) or name in ("cls.predictions.bias", "lm_head.bias")


@layouts()
@torch.no_grad()
def test_groups_are_exact_and_complete(variant, layout):
    model = build(variant)
    anatomy = anatomy_of_model(model).in_layout(layout)
    assert anatomy.layout == layout
    inputs = inputs_of(model)
    expected = logits(model, inputs)
    present = {spec.name for spec in anatomy.match(stored(model, layout)).values()}
    generator = torch.Generator().manual_seed(2)
    proven, left_out = set(), set()
    for group in anatomy.groups.values():
        members = [index for index, member in enumerate(group.members) if member.tensor in present]
        if not members or group.size == 1 or group.name == "B":
            continue
        order = torch.randperm(group.size, generator=generator)
        while (order == torch.arange(group.size)).all():
            order = torch.randperm(group.size, generator=generator)
        there = translated(inputs, group, order)
        changed = permute(model, anatomy, group, order)
        observed = logits(model, there)
        restore(changed)
        wanted = expected[..., order] if group.name in ("V", "C") else expected
        free = group.order == "free" or any(key in inputs for key in INDICES.get(group.name, ()))
        same = torch.allclose(observed, wanted, rtol=1e-11, atol=1e-11)
        assert same == free, f"{group.name}: {float((observed - wanted).abs().max())}"
        proven.add(group.name.split("@")[0])
        for index in members if free and len(members) > 1 else ():
            member = group.members[index]
            place = (group.name.split("@")[0], anatomy.spec(member.tensor).template, member.dim)
            if dead(member.tensor) or place in left_out:  # the same template once
                continue
            left_out.add(place)
            skip = index if member.entry is None else place[1]
            changed = permute(model, anatomy, group, order, skip=skip)
            observed = logits(model, there)
            restore(changed)
            assert not torch.allclose(observed, wanted, rtol=1e-8, atol=1e-8), member
    assert torch.equal(logits(model, inputs), expected), "everything was put back"
    assert {"H", "F"} <= proven
    assert proven & {"h", "g"}
    assert proven & {"V", "C"}
    assert variant not in MIXTURES or "X" in proven
    assert "dense" not in variant or "D" in proven


@variants()
def test_view_and_unview_are_bit_exact(variant):
    model = build(variant)
    anatomy = anatomy_of_model(model)
    for name, tensor in model.state_dict().items():
        viewed = anatomy.view(name, tensor)
        assert viewed.shape == tuple(factor.size for factor in anatomy.spec(name).factors)
        assert torch.equal(anatomy.unview(name, viewed), tensor)
        array = tensor.numpy()
        assert (anatomy.unview(name, anatomy.view(name, array)) == array).all()


def test_heads_of_fused_layouts():
    """GPT-2 keeps q, k, v blocks outside of the heads, GPT-NeoX inside, Llama groups its query heads."""
    gpt2, neox, llama = (build(variant) for variant in ("gpt2", "gpt_neox", "llama-gqa-tied"))
    fused = gpt2.transformer.h[0].attn.c_attn.weight
    viewed = anatomy_of_model(gpt2).view("transformer.h.0.attn.c_attn.weight", fused)
    assert torch.equal(viewed[:, 1, 2], fused[:, 24 + 12 : 24 + 18])  # keys of head 2
    fused = neox.gpt_neox.layers[0].attention.query_key_value.weight
    viewed = anatomy_of_model(neox).view("gpt_neox.layers.0.attention.query_key_value.weight", fused)
    assert torch.equal(viewed[2, 1], fused[2 * 18 + 6 : 2 * 18 + 12])
    weight = llama.model.layers[0].self_attn.q_proj.weight
    viewed = anatomy_of_model(llama).view("model.layers.0.self_attn.q_proj.weight", weight)
    assert torch.equal(viewed[1, 0], weight[12:18])  # group 1 starts at query head 2
