"""Mixtures of experts and vision models: two layouts of one model, and what a token meets."""

from __future__ import annotations

import pytest
import torch
import transformers
from anatomy_models import MIXTURES, VARIANTS, VISION, build, config_of, inputs_of, stored

from warmstart.anatomy import anatomy_of, anatomy_of_model
from warmstart.foundation.errors import UserError

TWO = [*MIXTURES, *(name for name in VARIANTS if VARIANTS[name]["model_type"] in VISION)]
two_layouts = pytest.mark.parametrize("variant", TWO)
mixtures = pytest.mark.parametrize("variant", MIXTURES)


@two_layouts
def test_either_layout_matches_whatever_the_anatomy_has(variant):
    model = build(variant)
    for anatomy in (anatomy_of(model.config), anatomy_of_model(model)):
        for layout in ("files", "memory"):
            held = stored(model, layout)
            found = anatomy.match(held)
            assert {name: spec.shape for name, spec in found.items()} == {
                n: tuple(t.shape) for n, t in held.items()
            }
            assert set(found) <= set(anatomy.in_layout(layout).tensors)
            assert anatomy.recognise(held) == found
            assert anatomy.parameters(held) == anatomy.parameters()
    assert anatomy_of(model.config).layout == "files"
    assert anatomy_of_model(model).layout == "memory"


@two_layouts
def test_a_mixture_of_layouts_is_refused(variant):
    model = build(variant)
    files, memory = stored(model, "files"), stored(model, "memory")
    (extra,) = [name for name in memory if name not in files][:1]
    for shapes in ({**files, extra: memory[extra]}, {extra: memory[extra], **files}):
        with pytest.raises(UserError, match=r"is a name of stored files and '.*' one of a model in memory"):
            anatomy_of_model(model).match(shapes)


@two_layouts
def test_groups_of_the_layouts_are_the_same(variant):
    files, memory = (anatomy_of(config_of(variant), layout=layout) for layout in ("files", "memory"))
    assert set(files.tensors) != set(memory.tensors)
    assert files.groups.keys() == memory.groups.keys()
    for name, group in files.groups.items():
        other = memory.groups[name]
        assert (group.axes, group.size, group.scope, group.order, group.normed) == (
            other.axes,
            other.size,
            other.scope,
            other.order,
            other.normed,
        )
    assert files.in_layout("memory") == memory
    assert memory.in_layout("files") == files
    assert memory.resized({"H": 48}) == files.resized({"H": 48}).in_layout("memory")


def test_one_layout_is_enough_for_dense_decoders():
    anatomy = anatomy_of(config_of("llama"), layout="memory")
    assert anatomy == anatomy_of(config_of("llama"))
    assert anatomy.layout == "files"
    assert anatomy.in_layout("memory") is anatomy


@mixtures
def test_experts_have_groups_of_their_own(variant):
    anatomy = anatomy_of(config_of(variant))
    experts = anatomy.sizes["X"]
    (layer, *_) = sorted({spec.layer for spec in anatomy.tensors.values() if spec.entry})
    group = anatomy.group("X", layer=layer)
    assert (group.name, group.scope, group.size) == (f"X@decoder.{layer}", "layer", experts)
    assert sorted(member.entry for member in group.members if member.dim is None) == sorted(
        [*range(experts)] * 3
    )
    assert [member.role for member in group.members if member.dim is not None] == ["o"], "the router's rows"
    for expert in range(experts):
        group = anatomy.group("F", layer=layer, expert=expert)
        assert group.scope == "expert"
        assert [member.role for member in group.members] == ["o", "o", "i"]
        entries = [anatomy.tensors[member.tensor].entry for member in group.members]
        assert {(entry.axis, entry.index, entry.group) for entry in entries} == {
            ("X", expert, f"X@decoder.{layer}")
        }
        memory = anatomy.in_layout("memory").group("F", layer=layer, expert=expert)
        assert {member.at for member in memory.members} == {(0, expert)}
    with pytest.raises(UserError, match="no axis group"):
        anatomy.group("F", layer=layer)


def test_only_olmoe_norms_all_heads_together():
    for variant in MIXTURES:
        anatomy = anatomy_of(config_of(variant))
        normed = {group.name.partition("@")[0] for group in anatomy.groups.values() if group.normed}
        expected = {"olmoe": {"H", "g", "r", "e"}, "qwen3_moe": {"H", "e"}}
        assert normed == expected.get(anatomy.model_type, {"H"})


@mixtures
@torch.no_grad()
def test_a_token_meets_the_active_parameters(variant):
    """The weights that act on one token: experts that it is not routed to can be anything."""
    model = build(variant)
    anatomy = anatomy_of_model(model)
    met = {}

    def remember(module, args, output):
        met[module] = {int(x) for x in output[2].flatten()}

    inputs = {"input_ids": inputs_of(model)["input_ids"][:1, :1]}
    routers = {n: m for n, m in model.named_modules() if "Router" in type(m).__name__}
    hooks = [router.register_forward_hook(remember) for router in routers.values()]
    expected = model(**inputs).logits
    for hook in hooks:
        hook.remove()
    active = sum(p.numel() for p in model.parameters())
    for name, router in routers.items():
        for tensor in model.get_submodule(name.replace("gate", "experts")).parameters():
            for x in range(anatomy.sizes["X"]):
                if x not in met[router]:
                    tensor[x] = torch.nan
                    active -= tensor[x].numel()
    assert torch.equal(model(**inputs).logits, expected)
    assert anatomy.parameters().active == active
    assert active < anatomy.parameters().total


@pytest.mark.parametrize("variant", ["mixtral", "qwen3_moe"])
def test_an_expert_too_many_is_named(variant):
    model = build(variant)
    held = stored(model, "files")
    name = next(name for name in held if ".experts.2." in name)
    with pytest.raises(UserError, match="the config promises 3 experts"):
        anatomy_of_model(model).match({**held, name.replace(".experts.2.", ".experts.3."): held[name]})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3},
            "num_experts_per_tok <= X",
        ),
        ({"model_type": "qwen3_moe", "num_experts": 0}, r"no positive whole number for the experts \(.*=0"),
        ({"model_type": "olmoe", "hidden_size": 24, "num_attention_heads": 5}, "contradict"),
        (
            {"model_type": "vit", "image_size": [224, 224]},
            r"patches along a side of the image \(image_size=\[224",
        ),
        ({"model_type": "vit", "hidden_size": 100}, r"h \* e == H"),
    ],
)
def test_bad_configs_end_in_one_sentence(config, message):
    with pytest.raises(UserError, match=message):
        anatomy_of(config, where="some/config.json")


def test_the_key_that_decides_the_number_of_experts_is_rewritten():
    assert anatomy_of({"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2}).config_updates(
        {"X": 6, "F": 5}
    ) == {"num_experts": 6, "moe_intermediate_size": 5, "head_dim": 64}
    saved = config_of("qwen3_moe").to_dict()  # transformers 5 writes the key of Mixtral
    assert anatomy_of(saved).config_updates({"X": 6}) == {"num_local_experts": 6}
    assert anatomy_of(config_of("mixtral")).config_updates({"F": 7})["intermediate_size"] == 7


@pytest.mark.parametrize("model_type", VISION)
def test_a_vision_model_has_no_vocabulary(model_type):
    anatomy = anatomy_of({"model_type": model_type})
    with pytest.raises(UserError, match=f"a {model_type} has no vocabulary"):
        _ = anatomy.vocabulary
    with pytest.raises(UserError, match=f"a {model_type} is no language model"):
        _ = anatomy.task
    with pytest.raises(UserError, match="no axis or stack 'V'"):
        anatomy.resized({"V": 10})
    assert anatomy.max_length == 196
    assert anatomy.sizes["P"] == 196 + {"vit": 1, "deit": 2}[model_type]


def test_other_image_sizes_are_other_position_tables():
    anatomy = anatomy_of({"model_type": "vit", "image_size": 225})
    assert "image_size" not in anatomy.config_updates({"F": 8}), "the border that no patch covers stays"
    grown = anatomy.resized({"N": 24})
    assert (grown.config["image_size"], grown.sizes["P"]) == (384, 577)
    with pytest.raises(UserError, match=r"its class sets P = N \* N \+ 1 = 197"):
        anatomy.resized({"P": 200})


@two_layouts
def test_queries_and_outputs_are_the_same_weights_in_both_layouts(variant):
    model = build(variant)
    files, memory = anatomy_of(model.config), anatomy_of_model(model)
    held = {layout: stored(model, layout) for layout in ("files", "memory")}
    (stack,) = files.layers
    for layer in range(files.layers[stack]):
        for of in ("queries", "outputs"):
            sizes = [
                sum(held[a.layout][name].numel() for name in getattr(a, of)(stack, layer))
                for a in (files, memory)
            ]
            assert sizes[0] == sizes[1] > 0
            with torch.no_grad():
                for name in getattr(files, of)(stack, layer):
                    held["files"][name].fill_(7.0)
            for name in getattr(memory, of)(stack, layer):
                assert (held["memory"][name] == 7).all(), name


def test_clipped_queries_cannot_be_scaled():
    config = config_of("olmoe", clip_qkv=1.0)
    assert anatomy_of(config).queries("decoder", 0) == {}
    assert anatomy_of(config_of("olmoe")).queries("decoder", 0) == {
        "model.layers.0.self_attn.q_norm.weight": None
    }


def test_files_of_a_mixture_open_in_transformers(tmp_path):
    """Permuting experts and units in the files leaves the reopened model's logits unchanged."""
    from safetensors.torch import load_file, save_file

    model = build("qwen2_moe")
    model.save_pretrained(tmp_path)
    held = load_file(tmp_path / "model.safetensors")
    anatomy = anatomy_of(transformers.AutoConfig.from_pretrained(tmp_path))
    anatomy.match(held)
    router = "model.layers.0.mlp.gate.weight"
    moved = {**held, router: held[router][[2, 0, 1]].contiguous()}
    for name, spec in anatomy.recognise(held).items():
        if spec.entry and spec.layer == 0:
            new = [2, 0, 1].index(spec.entry.index)
            dim = spec.dims.index(next(dim for dim in spec.dims if dim.factors[0].axis == "F"))
            target = spec.template.replace("{l}", "0").replace("{x}", str(new))
            moved[target] = held[name].roll(1 + spec.entry.index, dim).contiguous()
    save_file(moved, tmp_path / "model.safetensors", {"format": "pt"})
    slow = {"attn_implementation": "eager", "experts_implementation": "eager"}
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64, **slow)
    inputs = inputs_of(model)
    with torch.no_grad():
        assert torch.allclose(again(**inputs).logits, model(**inputs).logits, atol=1e-6)
    assert not torch.equal(
        again.model.layers[0].mlp.experts.down_proj, model.model.layers[0].mlp.experts.down_proj
    )
