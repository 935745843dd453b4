"""Small models and jobs for the tests of the planner."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from hypothesis import strategies as st
from transformers.models.auto import modeling_auto

from warmstart.anatomy import anatomy_of
from warmstart.anatomy.tables import tables
from warmstart.shape.plan import Workload
from warmstart.shape.plan.activations import Attending
from warmstart.shape.plan.numerics import NUMERICS
from warmstart.shape.plan.optimizers import optimizer_of

MT_NLG = {
    "model_type": "gpt2",
    "vocab_size": 51200,
    "n_embd": 20480,
    "n_layer": 105,
    "n_head": 128,
    "n_positions": 2048,
}


def llama(**changes: Any) -> dict[str, Any]:
    """A small Llama whose heads, units and layers have many divisors."""
    return {
        "model_type": "llama",
        "vocab_size": 96,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 256,
        **changes,
    }


def job(config: dict[str, Any] | None = None, **changes: Any) -> Workload:
    """A job on that model: float32, AdamW, 32 tokens."""
    settings: dict[str, Any] = {"precision": "float32", "optimizer": "adamw", "length": 32, **changes}
    return Workload(
        anatomy=anatomy_of(config or llama()),
        sequence_length=settings["length"],
        numerics=NUMERICS[settings["precision"]],
        optimizer=optimizer_of(settings["optimizer"]),
        rank=settings.get("rank", 4),
        attending=settings.get("attending", Attending()),
    )


@st.composite
def configs(draw: Any, model_type: str) -> dict[str, Any]:
    """Random small sizes in the config keys of any family."""
    heads = draw(st.sampled_from([2, 4, 6]))
    groups = draw(st.sampled_from([n for n in (1, 2, 3, heads) if heads % n == 0]))
    width, units = 2 * heads * draw(st.integers(1, 4)), draw(st.integers(3, 40))
    sizes = {"vocab_size": draw(st.integers(7, 90)), "tie_word_embeddings": draw(st.booleans())}
    layers, positions = draw(st.integers(1, 3)), draw(st.integers(8, 20))
    if model_type == "gpt2":
        return sizes | {
            "n_embd": width,
            "n_layer": layers,
            "n_head": heads,
            "n_positions": positions,
            "n_inner": units,
        }
    if "t5" in model_type:
        gate = draw(st.sampled_from(["relu", "gated-gelu"]))
        sizes |= {"tie_word_embeddings": True, "feed_forward_proj": gate, "d_kv": draw(st.integers(2, 9))}
        return sizes | {"d_model": width, "num_layers": layers, "num_heads": heads, "d_ff": units}
    common = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": units,
    }
    if tables()[model_type].task is None:  # images
        return common | {"image_size": 8, "patch_size": 4, "num_labels": 3}
    if "X" in tables()[model_type].axes:
        key = "num_local_experts" if model_type == "mixtral" else "num_experts"
        sizes |= {key: draw(st.integers(2, 4)), "num_experts_per_tok": 2, "moe_intermediate_size": units}
        sizes |= {
            "shared_expert_intermediate_size": units + 1,
            "decoder_sparse_step": draw(st.integers(1, 2)),
        }
    return common | sizes | {"max_position_embeddings": positions, "num_key_value_heads": groups}


def meta_model(config: Any) -> Any:
    """The model of a config, without memory for its weights."""
    task = anatomy_of(config).table.task
    name = config.model_type
    if task is None:  # one name, or several of which the auto class cannot choose
        known = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES[name]
        with torch.device("meta"):
            return getattr(transformers, known if isinstance(known, str) else known[0])(config)
    if "t5" in name:
        cls = transformers.AutoModelForSeq2SeqLM
    elif "bert" in name:
        cls = transformers.AutoModelForMaskedLM
    else:
        cls = transformers.AutoModelForCausalLM
    with torch.device("meta"):
        return cls.from_config(config)
