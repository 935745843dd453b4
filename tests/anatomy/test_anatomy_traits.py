"""What the tables say of norms, queries and outputs is what the models compute."""

from __future__ import annotations

import pytest
import torch
import transformers
from anatomy_models import VISION, build, config_of, float64_throughout, inputs_of, task_class, variants

from warmstart.anatomy import anatomy_of, anatomy_of_model
from warmstart.anatomy.tables import FamilyTable, tables
from warmstart.foundation.errors import UserError


def logits(model):
    with torch.no_grad(), float64_throughout(model):
        return model(**inputs_of(model)).logits


def blocks(anatomy):
    return [(stack, layer) for stack, layers in anatomy.layers.items() for layer in range(layers)]


@variants()
@torch.no_grad()
def test_a_block_with_zero_outputs_is_the_identity_where_norms_are_before(variant):
    model = build(variant)
    anatomy = anatomy_of_model(model)
    seen = {}

    def remember(module, args, output):
        states = output[0] if isinstance(output, tuple) else output
        seen["change"] = states - (args[0] if args else None)

    for stack, layer in blocks(anatomy):
        block = model.get_submodule(anatomy.site("block", stack=stack, layer=layer))
        hook = block.register_forward_hook(remember)
        names = anatomy.outputs(stack, layer)
        assert names
        for zeroed in names:  # every one of them moves the stream
            logits(model)
            before = seen["change"]
            weight = model.state_dict()[zeroed]
            old = weight.clone()
            weight.zero_()
            logits(model)
            assert not torch.equal(seen["change"], before), zeroed
            weight.copy_(old)
        for name in names:
            model.state_dict()[name].zero_()
        logits(model)
        assert (anatomy.residual == "pre") == (not seen["change"].any())
        hook.remove()


@variants()
@torch.no_grad()
def test_scaling_the_queries_scales_the_scores(variant):
    """c times the queries at a score scale of 1/c changes nothing, and nothing else does that."""
    model = build(variant)
    anatomy = anatomy_of_model(model)
    expected = logits(model)
    for stack, layer in blocks(anatomy):
        for name, index in anatomy.queries(stack, layer).items():
            viewed = anatomy.view(name, model.state_dict()[name])  # a view: changes are the model's
            if index is None:
                viewed *= 4
            else:
                (fused,) = [dim for dim, f in enumerate(anatomy.spec(name).factors) if f.axis is None]
                viewed.select(fused, index).mul_(4)
    assert not torch.allclose(logits(model), expected, rtol=1e-6)
    attentions = [module for module in model.modules() if hasattr(module, "scaling")]
    for module in attentions:
        module.scaling /= 4
    assert attentions
    assert torch.allclose(logits(model), expected, rtol=1e-12, atol=1e-12)


def scales_hold(config):
    with torch.device("meta"):
        model = task_class(config).from_config(config)
    anatomy = anatomy_of_model(model)
    for stack, layer in blocks(anatomy):
        block = model.get_submodule(anatomy.site("block", stack=stack, layer=layer))
        found = {module.scaling for module in block.modules() if hasattr(module, "scaling")}
        assert list(found) == [pytest.approx(anatomy.score_scale(layer), rel=1e-15)]


@variants()
def test_score_scale_is_that_of_the_modules(variant):
    scales_hold(config_of(variant))


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("inverse", [True, False])
def test_score_scale_follows_the_options_of_gpt2(weights, inverse):
    options = {"scale_attn_weights": weights, "scale_attn_by_inverse_layer_idx": inverse}
    scales_hold(config_of("gpt2-cross", **options))


@variants()
@torch.no_grad()
def test_the_last_norm_feeds_the_head_alone(variant):
    model = build(variant)
    anatomy = anatomy_of_model(model)
    head = model.classifier if anatomy.family in VISION else model.get_output_embeddings()
    if head.bias is not None:
        head.bias.zero_()
    expected = logits(model)
    for parameter in model.get_submodule(anatomy.last_norm).parameters():
        parameter *= 0.25
    assert torch.allclose(logits(model), 0.25 * expected, rtol=1e-12, atol=1e-12)


@variants()
def test_norms_are_of_the_kind_and_have_the_epsilon(variant):
    config = config_of(variant, **{anatomy_of(config_of(variant)).norm_eps_key: 0.125})
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    anatomy = anatomy_of(config)
    assert anatomy.norm_eps == 0.125
    norms = [m for m in model.modules() if "Norm" in type(m).__name__]
    assert norms
    for norm in norms:
        assert (getattr(norm, "eps", None) or norm.variance_epsilon) == 0.125
        assert ("RMS" in type(norm).__name__ or "T5LayerNorm" in type(norm).__name__) == (
            anatomy.norm_kind == "rms"
        )


@variants()
def test_positions_rotate_where_the_table_says_so(variant):
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config_of(variant))
    rotates = any("Rotary" in type(module).__name__ for module in model.modules())
    assert anatomy_of(config_of(variant)).rotary == rotates


@pytest.mark.parametrize("field", ["queries", "outputs", "last_norm"])
def test_a_misspelt_template_in_a_table_is_named(field):
    table = tables()["gpt2"].model_dump(mode="json")
    wrong = {
        "queries": {"transformer.h.{l}.attn.c_atn.weight": 0},
        "outputs": ["transformer.h.{l}.attn.c_atn.weight"],
        "last_norm": "transformer.lnf",
    }
    with pytest.raises(UserError, match=r"no tensor 'transformer.* did you mean 'transformer"):
        FamilyTable.parse({**table, field: wrong[field]}, where="x.yaml")


@pytest.mark.parametrize("model_type", sorted(tables()))
def test_the_place_of_the_queries_is_in_a_fused_dimension(model_type):
    anatomy = anatomy_of({"model_type": model_type})
    for stack, layer in blocks(anatomy):
        assert anatomy.queries(stack, layer)
        for name, index in anatomy.queries(stack, layer).items():
            constants = [factor.size for factor in anatomy.spec(name).factors if factor.axis is None]
            assert (constants == []) if index is None else (index < constants[0])
