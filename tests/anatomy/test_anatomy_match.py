"""Every parameter of every real model has its place; anything else is refused with a sentence."""

from __future__ import annotations

import pytest
import torch
import transformers
from anatomy_models import VARIANTS, VISION, build, config_of, storages, stored, task_class, variants
from hypothesis import given, settings
from hypothesis import strategies as st

from warmstart.anatomy import anatomy_of, anatomy_of_model
from warmstart.anatomy.tables import tables
from warmstart.foundation.errors import UserError


def shapes_of(model) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@variants()
def test_every_tensor_of_the_language_model_matches(variant):
    model = build(variant)
    shapes = shapes_of(model)
    anatomy = anatomy_of_model(model)
    found = anatomy.match(shapes)
    assert set(found) == set(shapes)
    assert {spec.name for spec in found.values()} == set(anatomy.language_model)
    assert {name: spec.shape for name, spec in found.items()} == shapes
    canonical = {spec.name for spec in found.values()}
    assert canonical <= set(shapes), "canonical names are names of the model"


@variants()
def test_base_model_matches_without_prefix(variant):
    config = config_of(variant)
    model = transformers.AutoModel.from_config(config)
    shapes = shapes_of(model)
    found = anatomy_of(config).match(shapes)
    assert set(found) == set(shapes)
    assert all(spec.unit in ("body", "pooler", "decoder") for spec in found.values())


@variants()
def test_tied_and_shared_tensors_are_those_of_the_model(variant):
    model = build(variant)
    anatomy = anatomy_of_model(model)
    owners: dict[int, str] = {}
    for name, tensor in model.state_dict().items():
        spec = anatomy.spec(name)
        owner = owners.setdefault(tensor.data_ptr(), spec.tied_to or spec.name)
        assert owner == (spec.tied_to or spec.name)
    assert len(owners) == len({*owners.values()}) == len(list(storages(model)))


@variants()
def test_saved_files_match(variant, tmp_path):
    """Files hold other names than the model (GPT-NeoX) and tied tensors once."""
    from safetensors import safe_open

    model = build(variant)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    shapes = {name: tuple(tensor.shape) for name, tensor in held.items()}
    anatomy = anatomy_of_model(model)
    found = anatomy.match(shapes)
    assert set(found) == set(shapes)
    assert set(anatomy.in_layout("files").language_model) >= {spec.name for spec in found.values()}
    if anatomy.layout == "memory":  # the tests' own view of the files is right
        views = stored(model, "files")
        assert {name: found[name].name for name in held} == {name: name for name in views}
        assert all(torch.equal(held[name], view) for name, view in views.items())


@pytest.mark.parametrize("model_type", sorted(tables()))
def test_defaults_are_those_of_the_config_class(model_type):
    bare, full = (
        anatomy_of({"model_type": model_type}),
        anatomy_of(transformers.AutoConfig.for_model(model_type)),
    )
    facts = ("sizes", "layers", "tied", "max_length", "norm_eps", "rotary", "tensors")
    facts = (*facts, "vocabulary") if bare.table.vocabulary else facts
    for fact in facts:
        assert getattr(bare, fact) == getattr(full, fact), fact
    assert bare.score_scale(1) == full.score_scale(1)
    assert bare.parameters() == full.parameters()


@variants()
def test_raw_config_and_config_object_agree(variant):
    raw, full = anatomy_of(VARIANTS[variant], tied=True), anatomy_of(config_of(variant), tied=True)
    assert raw.tensors == full.tensors
    assert raw.table.vocabulary is None or raw.vocabulary == full.vocabulary


@variants()
def test_unknown_tensor_is_refused(variant):
    model = build(variant)
    shapes = shapes_of(model)
    with pytest.raises(UserError, match=r"'surplus\.weight' has no place"):
        anatomy_of_model(model).match({**shapes, "surplus.weight": (3, 3)})


@variants()
def test_a_layer_too_many_is_refused(variant):
    model = build(variant)
    anatomy = anatomy_of_model(model)
    last = anatomy.layers[next(iter(anatomy.layers))] - 1
    block = anatomy.site("block", layer=last)
    grown = {
        name.replace(block + ".", anatomy.table.sites["block"][0].replace("{l}", str(last + 1)) + "."): shape
        for name, shape in shapes_of(model).items()
    }
    with pytest.raises(UserError, match=rf"the config promises {last + 1} \w+ layers"):
        anatomy.match({**shapes_of(model), **grown})


@variants()
def test_wrong_size_is_refused_by_name(variant):
    model = build(variant)
    anatomy = anatomy_of_model(model)
    for name, shape in shapes_of(model).items():
        with pytest.raises(UserError) as error:
            anatomy.match({**shapes_of(model), name: (shape[0] + 1, *shape[1:])})
        for part in (repr(name), str((shape[0] + 1, *shape[1:])), str(shape)):
            assert part in str(error.value)


@variants()
def test_missing_tensor_is_refused(variant):
    model = build(variant)
    anatomy = anatomy_of_model(model)
    shapes = shapes_of(model)
    canonical = {}
    for name in shapes:
        spec = anatomy.spec(name)
        canonical.setdefault(spec.tied_to or spec.name, []).append(name)
    for owner, names in canonical.items():
        rest = {name: shape for name, shape in shapes.items() if name not in names}
        if owner == "lm_head.weight" and not anatomy.table.prefix:
            assert anatomy.match(rest)  # a T5 without head is the base model, whose names are the same
            continue
        with pytest.raises(UserError, match=r"missing|no head"):
            anatomy.match(rest)
        for kept in names:  # one name of a shared tensor is enough
            assert anatomy.match({**rest, kept: shapes[kept]})


def test_buffers_and_names_of_older_releases():
    gpt2 = anatomy_of(VARIANTS["gpt2"])
    shapes = {name: spec.shape for name, spec in gpt2.language_model.items()}
    buffers = {"transformer.h.0.attn.bias": (1, 1, 16, 16), "transformer.h.1.attn.masked_bias": ()}
    assert set(gpt2.match({**shapes, **buffers})) == set(shapes)
    bert = anatomy_of(VARIANTS["bert"])
    shapes = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): spec.shape
        for name, spec in bert.language_model.items()
    }
    found = bert.match({**shapes, "bert.embeddings.position_ids": (1, 16)})
    assert found["bert.embeddings.LayerNorm.gamma"].name == "bert.embeddings.LayerNorm.weight"
    with pytest.raises(UserError, match="are the same parameter"):
        bert.match({**shapes, "embeddings.word_embeddings.weight": (23, 24)})


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("BertForPreTraining", "bert"),
        ("BertForSequenceClassification", "bert"),
        ("BertForTokenClassification", "bert"),
        ("BertForMultipleChoice", "bert"),
        ("BertForQuestionAnswering", "bert"),
        ("BertForNextSentencePrediction", "bert"),
        ("RobertaForSequenceClassification", "roberta"),
        ("XLMRobertaForTokenClassification", "xlm-roberta-untied"),
        ("LlamaForSequenceClassification", "llama"),
        ("Qwen3ForTokenClassification", "qwen3"),
        ("GPT2ForSequenceClassification", "gpt2"),
        ("GPT2ForTokenClassification", "gpt2"),
        ("GPTNeoXForQuestionAnswering", "gpt_neox"),
        ("T5EncoderModel", "t5"),
        ("MixtralForSequenceClassification", "mixtral"),
        ("Qwen3MoeForTokenClassification", "qwen3_moe"),
        ("ViTModel", "vit-unbiased-pooler"),
        ("ViTForMaskedImageModeling", "vit"),
        ("DeiTForMaskedImageModeling", "deit"),
        ("DeiTForImageClassificationWithTeacher", "deit"),
    ],
)
def test_other_heads_match(name, variant):
    config = config_of(variant, num_labels=5)
    config.architectures = [name]
    model = getattr(transformers, name)(config)
    anatomy = anatomy_of(config)
    assert set(anatomy.match(shapes_of(model))) == set(shapes_of(model))
    assert anatomy.parameters(shapes_of(model)).total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "names no model_type"),
        ({"model_type": "lama"}, "'lama' is unknown here .*; known are bert, .*llama, "),
        ({"model_type": "mamba"}, "'mamba' is unknown"),
        ({"model_type": "gpt2", "n_embd": 30}, r"h \* e == H does not hold \(h=12, e=2, H=30\)"),
        ({"model_type": "llama", "num_attention_heads": 6, "num_key_value_heads": 4}, "contradict"),
        ({"model_type": "bert", "hidden_size": "wide"}, "no positive whole number for the hidden size"),
        ({"model_type": "bert", "num_attention_heads": 0}, "no positive whole number for the heads"),
        ({"model_type": "t5", "num_layers": None}, "number of encoder layers"),
        ({"model_type": "t5", "d_kv": 2.5}, r"d_kv=2.5"),
    ],
)
def test_bad_configs_end_in_one_sentence(config, message):
    with pytest.raises(UserError, match=message):
        anatomy_of(config, where="some/config.json")


@settings(max_examples=25, deadline=None)
@given(data=st.data(), model_type=st.sampled_from(sorted(tables())), tied=st.booleans())
def test_random_sizes_match_the_real_model(data, model_type, tied):
    size = st.integers(1, 5)
    heads, groups = data.draw(size), data.draw(size)
    values = {"vocab_size": data.draw(st.integers(2, 30)), "tie_word_embeddings": tied, "pad_token_id": 1}
    family = tables()[model_type].family
    if family == "t5":
        values |= {"d_model": data.draw(size), "d_kv": data.draw(size), "d_ff": data.draw(size)}
        values |= {"num_heads": heads, "num_layers": data.draw(size), "num_decoder_layers": data.draw(size)}
        values |= {"feed_forward_proj": data.draw(st.sampled_from(["relu", "gated-gelu"]))}
    elif family == "gpt2":
        values |= {"n_embd": heads * data.draw(size), "n_head": heads, "n_layer": data.draw(size)}
        values |= {"n_inner": data.draw(st.none() | size), "n_positions": data.draw(size)}
    elif family in VISION:
        values = {"hidden_size": heads * data.draw(size), "num_attention_heads": heads}
        values |= {"intermediate_size": data.draw(size), "num_hidden_layers": data.draw(size)}
        values |= {"patch_size": groups, "image_size": data.draw(st.integers(groups, 4 * groups))}
        values |= {"num_channels": data.draw(size), "qkv_bias": data.draw(st.booleans())}
    else:
        values |= {"hidden_size": heads * groups * 2 * data.draw(size), "num_attention_heads": heads * groups}
        values |= {"intermediate_size": data.draw(size), "num_hidden_layers": data.draw(size)}
        values |= {"max_position_embeddings": 4 + data.draw(size)}
        if family == "llama":
            values |= {"num_key_value_heads": groups, "attention_bias": data.draw(st.booleans())}
            values |= {"head_dim": 2 * data.draw(size)}
        if family == "mixtral":
            experts = data.draw(st.integers(2, 5))
            key = "num_local_experts" if model_type == "mixtral" else "num_experts"
            values |= {"num_key_value_heads": groups, "attention_bias": data.draw(st.booleans())}
            values |= {key: experts, "num_experts_per_tok": data.draw(st.integers(1, experts))}
            values |= {"moe_intermediate_size": data.draw(size)}
            values |= {"shared_expert_intermediate_size": data.draw(size)}
            values |= {"decoder_sparse_step": data.draw(st.integers(1, 3))}
            values |= {"mlp_only_layers": data.draw(st.none() | st.lists(st.integers(0, 4)))}
    config = transformers.AutoConfig.for_model(model_type, **values)
    with torch.device("meta"):
        model = task_class(config).from_config(config)
    anatomy = anatomy_of(config)
    shapes = shapes_of(model)
    assert {name: spec.shape for name, spec in anatomy.match(shapes).items()} == shapes
    assert anatomy.parameters().total == sum(p.numel() for p in model.parameters())
