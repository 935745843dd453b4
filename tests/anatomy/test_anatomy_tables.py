"""Tables are sound data: closed expressions, real config keys, parsable notation."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import transformers
from anatomy_models import VARIANTS, config_of, variants

from warmstart.anatomy import anatomy_of
from warmstart.anatomy.expressions import evaluate, variables
from warmstart.anatomy.notation import parse_dims
from warmstart.anatomy.tables import FamilyTable, tables
from warmstart.foundation.errors import UserError


@pytest.mark.parametrize("model_type", sorted(tables()))
def test_expressions_read_only_what_exists(model_type):
    """A misspelt config key would silently be None."""
    table = tables()[model_type]
    config = transformers.AutoConfig.for_model(model_type)
    # keys of sibling architectures, of optional features, and those that the builder adds
    known = {*table.axes, *table.flags, "tied", "architecture", "num_labels", "model_type"}
    known |= (
        {f"layers_{stack}" for stack in table.stacks} | set(config.to_dict()) | {"layer", *table.layer_flags}
    )
    for sibling in table.models:
        known |= set(transformers.AutoConfig.for_model(sibling).to_dict())
    used = [table.tied, table.task, table.max_length, *table.stacks.values(), *table.flags.values()]
    used += [*table.constraints, *table.config.values(), *table.layer_flags.values(), table.added_tokens]
    used += [table.rotary, table.score_scale, *(query.when for query in table.queries.values())]
    used += [table.vocabulary.head_scale] if table.vocabulary else []
    used += [value for axis in table.axes.values() for value in (axis.size, axis.joins_when, axis.when)]
    used += [value for item in table.attention for value in (item.heads, item.dim, item.when)]
    for part in table.tensors.values():
        for entries in part.values():
            used += [value for entry in entries for value in (entry.when, entry.tied_when, entry.share)]
    assert len(used) > 40
    for expression in used:
        for name in variables(expression if expression is not None else True):
            assert name in known, expression
    siblings = [transformers.AutoConfig.for_model(sibling) for sibling in table.models]
    for name in (*table.config, table.norm.eps, *table.per_layer_keys, *table.layer_index_keys):
        assert any(hasattr(sibling, name) for sibling in siblings) or name == "head_dim", name
    for name in (*table.models[model_type], *anatomy_of(config).config_updates()):
        assert hasattr(config, name) or name == "head_dim", name


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a * b + 2", 14),
        ("missing or a // 2", 1),
        ("missing is None", True),
        ("a if b > 3 else -b", 3),
        ("a in (1, 3) and b", 4),
        ("not a == 3", False),
        ("'x' not in word", True),
        ("b ** -0.5", 0.5),
        ("a - 3 or 7", 7),
        (5, 5),
        (True, True),
    ],
)
def test_expressions(expression, value):
    assert evaluate(expression, {"a": 3, "b": 4, "word": "yz"}) == value


@pytest.mark.parametrize(
    "expression", ["print(1)", "a.real", "a[0]", "[1]", "lambda: 1", "1 < a < 4", "a +", "f'{a}'"]
)
def test_expressions_are_closed(expression):
    with pytest.raises(ValueError, match=r"not allowed|not an expression"):
        evaluate(expression, {"a": 3})


@pytest.mark.parametrize("text", ["", "H", "H:x", "(h e:o", "H:o, F:i", "Z:o", "H:o F"])
def test_bad_notation_is_refused(text):
    with pytest.raises(ValueError, match=r"notation|unknown axis"):
        parse_dims(text, {"H": 2, "h": 1, "e": 2, "F": 3}, {"H": "H", "h": "h", "e": "e", "F": "F"})


def test_view_acts_on_named_dims():
    spec = anatomy_of(VARIANTS["gpt2"]).spec("h.0.attn.c_attn.weight")
    array = np.arange(spec.size).reshape(spec.shape)
    assert spec.roles == ("i", "o", "o", "o")
    assert spec.axis_dims("h") == (2,)
    fewer = spec.unview(spec.view(array)[:, :, :3])
    assert fewer.shape == (24, 3 * 3 * 6)
    assert (fewer[:, 18:36] == array[:, 24:42]).all(), "the first three key heads"
    with pytest.raises(UserError, match=r"'transformer\.h\.0\.attn\.c_attn\.weight' has shape \(72, 24\)"):
        spec.view(array.T)
    with pytest.raises(ValueError, match="expected 4"):
        spec.unview(array)


@variants()
def test_anatomy_is_frozen_and_travels_between_processes(variant):
    anatomy = anatomy_of(config_of(variant), tied=False)
    again = pickle.loads(pickle.dumps(anatomy))
    assert again == anatomy
    with pytest.raises(TypeError):
        anatomy.sizes["H"] = 3  # type: ignore[index]
    with pytest.raises(AttributeError):
        anatomy.tied = True  # type: ignore[misc]


def test_a_misspelt_key_in_a_table_is_named():
    table = tables()["gpt2"].model_dump(mode="json")
    with pytest.raises(UserError, match="did you mean 'axes'"):
        FamilyTable.parse({**table, "axs": table["axes"]}, where="x.yaml")


@pytest.mark.parametrize(
    ("config", "total"),
    [
        ({"model_type": "gpt2"}, 124_439_808),
        ({"model_type": "llama"}, 6_738_415_616),
        ({"model_type": "bert"}, 109_514_298),
        ({"model_type": "t5"}, 60_506_624),
        (  # flan-t5-small
            {
                "model_type": "t5",
                "d_ff": 1024,
                "num_layers": 8,
                "num_heads": 6,
                "feed_forward_proj": "gated-gelu",
                "tie_word_embeddings": False,
            },
            76_961_152,
        ),
        ({"model_type": "mixtral"}, 46_702_792_704),
        ({"model_type": "olmoe", "intermediate_size": 1024}, 6_919_161_856),
        ({"model_type": "qwen2_moe"}, 14_315_784_192),  # Qwen1.5-MoE-A2.7B
        ({"model_type": "vit", "id2label": dict.fromkeys(range(1000), "")}, 86_567_656),
        (  # pythia-70m
            {
                "model_type": "gpt_neox",
                "vocab_size": 50304,
                "hidden_size": 512,
                "intermediate_size": 2048,
                "num_hidden_layers": 6,
                "num_attention_heads": 8,
            },
            70_426_624,
        ),
    ],
)
def test_published_sizes(config, total):
    assert anatomy_of(config).parameters().total == total
