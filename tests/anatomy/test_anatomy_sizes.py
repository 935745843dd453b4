"""Counts and FLOPs equal the real model's; sites exist; sizes can be rewritten."""

from __future__ import annotations

import pytest
import torch
import transformers
from anatomy_models import MIXTURES, VARIANTS, VISION, build, config_of, inputs_of, task_class, variants
from torch.utils.flop_counter import FlopCounterMode

from warmstart.anatomy import anatomy_of, anatomy_of_model
from warmstart.foundation.errors import UserError


@variants()
def test_parameter_counts_are_exact(variant):
    model = build(variant)
    anatomy = anatomy_of_model(model)
    counts = anatomy.parameters()
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts == anatomy.parameters(model.state_dict())
    parts = counts.as_dict()
    total, body = parts.pop("total"), parts.pop("non_embedding")
    idle = 0
    for module in model.modules():
        if "Experts" in type(module).__name__:
            experts = sum(p.numel() for p in module.parameters())
            idle += experts * (anatomy.sizes["X"] - 2) // anatomy.sizes["X"]
    assert (variant in MIXTURES) == (idle > 0)
    assert total - parts.pop("active", total) == total - counts.active == idle
    assert sum(parts.values()) == total
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding))
    if anatomy.family in VISION:
        tables = sum(p.numel() for p in model.get_submodule(anatomy.site("embeddings")).parameters())
    if anatomy.family == "t5":  # three modules hold the one shared table
        tables -= 2 * model.shared.weight.numel()
    rows = model.get_output_embeddings()
    head = 0 if anatomy.tied or rows is None else rows.weight.numel()
    assert body == total - tables - head
    norms = [m for m in model.modules() if "Norm" in type(m).__name__ and "Head" not in type(m).__name__]
    inside = sum(p.numel() for m in norms for p in m.parameters())
    assert counts.norms == inside - (2 * 24 if anatomy.family in ("bert", "roberta") else 0)


@variants()
def test_base_model_counts(variant):
    config = config_of(variant)
    model = transformers.AutoModel.from_config(config)
    counts = anatomy_of(config).parameters(model.state_dict())
    assert counts.total == sum(p.numel() for p in model.parameters())
    assert counts.head == 0


@variants()
def test_flops_are_those_that_torch_counts(variant):
    model = build(variant)
    anatomy = anatomy_of_model(model)
    inputs = inputs_of(model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs)
    if "encoder_hidden_states" in inputs:  # the formula takes one length for an attended encoder
        inputs["encoder_hidden_states"] = torch.zeros(2, 7, 24, dtype=torch.float64)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(**inputs)
    target = inputs["decoder_input_ids"].shape[1] if "decoder_input_ids" in inputs else None
    length = 7 if "input_ids" in inputs else anatomy.max_length
    assert counter.get_total_flops() == 2 * anatomy.flops(length, target_length=target)
    assert anatomy.flops(5) == anatomy.in_layout("files").flops(5)


@variants(text=True)
def test_predicted_fraction_saves_the_head(variant):
    anatomy = anatomy_of(config_of(variant))
    head = 2 * 23 * 24 + (2 * 24 * 24 if anatomy.task == "masked" else 0)
    assert anatomy.flops(8) - anatomy.flops(8, predicted_fraction=0.25) == pytest.approx(0.75 * 8 * head)


@variants()
def test_sites_are_modules_of_the_model(variant):
    model = build(variant)
    anatomy = anatomy_of_model(model)
    modules = dict(model.named_modules())
    shapes = {}

    def remember(name):
        def hook(module, args, output):
            shapes[name] = (output[0] if isinstance(output, tuple) else output).shape

        return hook

    names = []
    for kind, templates in anatomy.table.sites.items():
        for stack, template in zip(anatomy.layers, templates * len(anatomy.layers)):
            for layer in range(anatomy.layers[stack]) if template else ():
                name = anatomy.site(kind, stack=stack, layer=layer)
                assert name in modules, kind
                names.append(name)
                if kind in ("block", "attention_output", "mlp_output", "final_norm", "embeddings"):
                    modules[name].register_forward_hook(remember(name))
    with torch.no_grad():
        model(**inputs_of(model))
    assert shapes
    assert all(shape[-1] == 24 for shape in shapes.values())
    assert {"block", "attention_output", "mlp_output"} <= set(anatomy.table.sites)
    with pytest.raises(UserError, match="no site 'block' at layer 9"):
        anatomy.site("block", layer=9)
    with pytest.raises(UserError, match="did you mean 'block'"):
        anatomy.site("blok", layer=0)


@variants(text=True)
def test_vocabulary_sites(variant):
    model = build(variant)
    sites = anatomy_of_model(model).vocabulary
    rows, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    for name in sites.input_rows:
        assert model.get_parameter(name) is rows
    assert sites.tied == (head.weight is rows) == (sites.head_rows is None)
    if sites.head_rows:
        assert model.get_parameter(sites.head_rows) is head.weight
    assert (head.bias is None) == (sites.head_bias == ())
    if sites.head_bias:
        assert model.get_parameter(sites.head_bias[0]) is head.bias
        assert (model.get_parameter(sites.head_bias[1]) is head.bias) == sites.tied
    # every parameter with one entry or row per token is named
    named = {*sites.input_rows, *sites.head_bias, sites.head_rows}
    per_token = {name for name, tensor in model.named_parameters() if 23 in tensor.shape}
    assert per_token <= named


@variants(text=True)
def test_head_scale_is_what_the_model_does(variant):
    """logits = head_scale * (last hidden state @ head rows) + bias."""
    model = build(variant)
    anatomy = anatomy_of_model(model)
    seen = {}
    model.get_output_embeddings().register_forward_hook(lambda m, args, out: seen.update(x=args[0]))
    if anatomy.task == "seq2seq":
        model.decoder.register_forward_hook(lambda m, args, out: seen.update(state=out[0]))
        with torch.no_grad():
            model(**inputs_of(model))
        assert torch.allclose(seen["x"], anatomy.vocabulary.head_scale * seen["state"], rtol=1e-12)
    else:
        assert anatomy.vocabulary.head_scale == 1


@pytest.mark.parametrize("raw", [{}, {"tie_word_embeddings": True}, {"tie_word_embeddings": False}])
@pytest.mark.parametrize("flag", [{}, {"scale_decoder_outputs": True}, {"scale_decoder_outputs": False}])
def test_t5_scale_is_read_as_transformers_reads_it(raw, flag):
    config = transformers.T5Config.from_dict({"d_model": 16, **raw, **flag})
    expected = 0.25 if config.scale_decoder_outputs else 1.0
    assert anatomy_of({"model_type": "t5", "d_model": 16, **raw, **flag}).vocabulary.head_scale == expected
    assert anatomy_of(config).vocabulary.head_scale == expected


def test_untied_t5_is_seen_in_the_weights(tmp_path):
    model = build("t5-v1.1")
    assert anatomy_of(model.config).tied, "the config of transformers 5 does not say it"
    assert not anatomy_of_model(model).tied
    model.save_pretrained(tmp_path)
    again = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert not anatomy_of_model(again).tied


@variants()
def test_resized_is_the_model_of_the_rewritten_config(variant):
    anatomy = anatomy_of(config_of(variant))
    changes = {"V": 29, "F": 12, "H": 48}
    heads = {"llama": {"g": 6}, "mixtral": {"g": 6, "X": 5}, "t5": {"h": 6}}.get(anatomy.family, {"h": 8})
    if anatomy.family in VISION:
        changes = {"N": 3, "F": 12, "H": 48}
    heads |= {axis: 9 for axis in ("S", "D") if anatomy.family == "mixtral" and axis in anatomy.sizes}
    layers = {stack: 3 + index for index, stack in enumerate(anatomy.layers)}
    grown = anatomy.resized({**changes, **heads}, layers)
    assert dict(grown.layers) == layers
    assert anatomy.axes({**changes, **heads}) == dict(grown.sizes)
    updates = anatomy.config_updates({**changes, **heads}, layers)
    config = config_of(variant).to_dict()
    config.pop("layer_types", None)  # one entry per layer: the caller's
    new = transformers.AutoConfig.for_model(**{**config, **updates})
    with torch.device("meta"):
        model = task_class(new).from_config(new)
    found = grown.match(model.state_dict())
    assert {spec.name for spec in found.values()} == set(grown.in_layout("memory").language_model)
    assert not {key for key in anatomy.resized(layers=layers).config if key not in anatomy.config} - {
        "head_dim",
        "n_inner",
    }


def test_impossible_sizes_are_refused():
    gpt2 = anatomy_of(VARIANTS["gpt2"])
    with pytest.raises(
        UserError, match=r"cannot have head dimension e=9: its class sets e = n_embd // n_head"
    ):
        gpt2.resized({"e": 9})
    with pytest.raises(UserError, match="contradict"):
        gpt2.resized({"H": 25})
    with pytest.raises(UserError, match="no axis or stack 'Q'"):
        gpt2.axes({"Q": 3})


def test_groups_know_their_scope():
    t5 = anatomy_of(VARIANTS["t5"])
    shared = t5.group("h", stack="decoder", layer=1)
    assert shared.name == "h@decoder"
    assert any("relative_attention_bias" in member.tensor for member in shared.members)
    assert {t5.tensors[member.tensor].layer for member in shared.members} == {None, 0, 1}
    assert t5.group("c", stack="decoder", layer=1).name == "c@decoder.1"
    bert, untied = anatomy_of(VARIANTS["bert"]), anatomy_of(VARIANTS["bert-untied"])
    assert bert.group("T") == bert.group("H")
    assert untied.group("T") != untied.group("H")
    with pytest.raises(UserError, match="no axis group"):
        bert.group("F", layer=7)


def test_no_model_library_is_needed():
    import subprocess
    import sys

    code = (
        "import sys; from warmstart.anatomy import anatomy_of; anatomy_of({'model_type': 'bert'});"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
