"""Tiny random models of every family and variant, with weights that leave no tensor without effect."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers

VOCAB = 23
_DECODER = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}
_GPT2 = {"vocab_size": VOCAB, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 16}
_T5 = {"vocab_size": VOCAB, "d_model": 24, "num_layers": 2, "num_heads": 4, "d_ff": 20, "d_kv": 5}
_GATED = {"feed_forward_proj": "gated-gelu"}
_MHA = {"num_key_value_heads": 4}
_MOE = {**_DECODER, "num_key_value_heads": 2, "num_experts_per_tok": 2}
_QWEN_MOE = {**_MOE, "num_experts": 3, "moe_intermediate_size": 10}
_VIT = {
    **{key: value for key, value in _DECODER.items() if key not in ("vocab_size", "max_position_embeddings")},
    "image_size": 8,
    "patch_size": 4,
    "encoder_stride": 4,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **_DECODER},
    "llama-gqa-tied": {
        "model_type": "llama",
        **_DECODER,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "llama-biases-head_dim": {
        "model_type": "llama",
        **_DECODER,
        "num_key_value_heads": 2,
        "attention_bias": True,
        "mlp_bias": True,
        "head_dim": 10,
    },
    "mistral": {"model_type": "mistral", **_DECODER, "num_key_value_heads": 2},
    "mistral-mha": {"model_type": "mistral", **_DECODER, **_MHA},
    "qwen2-tied": {"model_type": "qwen2", **_DECODER, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "qwen2-head_dim": {"model_type": "qwen2", **_DECODER, **_MHA, "head_dim": 8},
    "qwen3": {"model_type": "qwen3", **_DECODER, "num_key_value_heads": 2, "head_dim": 8},
    "qwen3-biases": {"model_type": "qwen3", **_DECODER, **_MHA, "head_dim": 6, "attention_bias": True},
    "gpt2": {"model_type": "gpt2", **_GPT2},
    "gpt2-inner-untied": {"model_type": "gpt2", **_GPT2, "n_inner": 20, "tie_word_embeddings": False},
    "gpt2-numbered": {"model_type": "gpt2", **_GPT2, "scale_attn_by_inverse_layer_idx": True},
    "gpt2-cross": {"model_type": "gpt2", **_GPT2, "add_cross_attention": True},
    "gpt_neox": {"model_type": "gpt_neox", **_DECODER},
    "gpt_neox-sequential-tied": {
        "model_type": "gpt_neox",
        **_DECODER,
        "use_parallel_residual": False,
        "attention_bias": False,
        "tie_word_embeddings": True,
    },
    "bert": {"model_type": "bert", **_DECODER},
    "bert-untied": {"model_type": "bert", **_DECODER, "tie_word_embeddings": False},
    "roberta": {"model_type": "roberta", **_DECODER},
    "xlm-roberta-untied": {"model_type": "xlm-roberta", **_DECODER, "tie_word_embeddings": False},
    "t5": {"model_type": "t5", **_T5},
    "t5-v1.1": {"model_type": "t5", **_T5, **_GATED, "tie_word_embeddings": False},
    "t5-deep-decoder": {"model_type": "t5", **_T5, "num_decoder_layers": 3},
    "mt5": {"model_type": "mt5", **_T5},
    "mixtral": {"model_type": "mixtral", **_MOE, "num_local_experts": 3},
    "mixtral-head_dim-tied": {
        "model_type": "mixtral",
        **_MOE,
        "num_local_experts": 4,
        "head_dim": 8,
        "tie_word_embeddings": True,
    },
    "olmoe": {"model_type": "olmoe", **_MOE, "num_experts": 3},
    "olmoe-biases": {"model_type": "olmoe", **_MOE, "num_experts": 3, "attention_bias": True},
    "qwen2_moe": {
        "model_type": "qwen2_moe",
        **_QWEN_MOE,
        "shared_expert_intermediate_size": 14,
        "mlp_only_layers": [1],
    },
    "qwen2_moe-every-second-unbiased": {
        "model_type": "qwen2_moe",
        **_QWEN_MOE,
        "shared_expert_intermediate_size": 6,
        "decoder_sparse_step": 2,
        "qkv_bias": False,
    },
    "qwen3_moe": {"model_type": "qwen3_moe", **_QWEN_MOE, "head_dim": 8},
    "qwen3_moe-biases-dense-tied": {
        "model_type": "qwen3_moe",
        **_QWEN_MOE,
        "head_dim": 6,
        "attention_bias": True,
        "mlp_only_layers": [1],
        "tie_word_embeddings": True,
    },
    "vit": {"model_type": "vit", **_VIT},
    "vit-unbiased-pooler": {"model_type": "vit", **_VIT, "qkv_bias": False, "pooler_output_size": 7},
    "deit": {"model_type": "deit", **_VIT, "patch_size": 2},
}
MIXTURES = tuple(name for name in VARIANTS if "num_experts_per_tok" in VARIANTS[name])
VISION = ("vit", "deit")


def variants(*, text: bool = False) -> Any:
    """Decorator: run a test once per variant, or per variant that reads text."""
    names = [name for name in VARIANTS if not text or VARIANTS[name]["model_type"] not in VISION]
    return pytest.mark.parametrize("variant", names)


def layouts() -> Any:
    """Decorator: run a test once per variant and layout of its weights."""
    two = [name for name in VARIANTS if VARIANTS[name]["model_type"] in VISION or name in MIXTURES]
    places = [(name, "memory" if name in two else "files") for name in VARIANTS]
    return pytest.mark.parametrize(("variant", "layout"), [*places, *((name, "files") for name in two)])


def config_of(variant: str, **changes: Any) -> Any:
    """The transformers config of a variant."""
    values = {**VARIANTS[variant], **changes}
    model_type = values.pop("model_type")
    if variant in MIXTURES:  # the faster ones pad, and torch does not count them
        values["experts_implementation"] = "eager"
    return transformers.AutoConfig.for_model(model_type, **values, attn_implementation="eager")


def task_class(config: Any) -> Any:
    """The auto class with the language-model head."""
    if config.model_type in ("t5", "mt5"):
        return transformers.AutoModelForSeq2SeqLM
    if "bert" in config.model_type:
        return transformers.AutoModelForMaskedLM
    if config.model_type in VISION:  # of several classes, transformers takes the one that the config names
        name = {"vit": "ViTForImageClassification", "deit": "DeiTForImageClassification"}[config.model_type]
        config.architectures = config.architectures or [name]
        return transformers.AutoModelForImageClassification
    return transformers.AutoModelForCausalLM


def build(variant: str, *, untie: bool = False) -> Any:
    """A float64 model in which every parameter is random and matters."""
    torch.manual_seed(0)
    config = config_of(variant)
    model = task_class(config).from_config(config).double().eval()
    if untie or (variant == "t5-v1.1"):
        # transformers ties every T5 it builds, and unties one whose checkpoint holds two tensors
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.3 if parameter.ndim == 1 else 0.0, 0.4)
    return model


@contextmanager
def float64_throughout(model: Any) -> Iterator[None]:
    """Let casts to float32 inside the model's own code (RMSNorm, softmax, rotation) give float64."""

    class Torch:
        float32 = float = torch.float64

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        for name in {type(module).__module__ for module in model.modules()}:
            if name.startswith("transformers."):
                patch.setattr(sys.modules[name], "torch", Torch(), raising=False)
        yield


def inputs_of(model: Any) -> dict[str, torch.Tensor]:
    """A batch of 2 sequences of 7 tokens with explicit positions, never the padding token; or of 2 images."""
    generator = torch.Generator().manual_seed(1)
    config = model.config
    if config.model_type in VISION:
        return {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)}
    ids = torch.randint(4, VOCAB, (2, 7), generator=generator)
    if config.model_type in ("t5", "mt5"):
        decoder = torch.randint(4, VOCAB, (2, 5), generator=generator)
        return {"input_ids": ids, "decoder_input_ids": decoder}
    inputs = {"input_ids": ids}
    if config.model_type in ("gpt2", "bert", "roberta", "xlm-roberta"):
        inputs["position_ids"] = torch.arange(3, 10).expand(2, 7)
    if "bert" in config.model_type:
        inputs["token_type_ids"] = torch.randint(0, config.type_vocab_size, (2, 7), generator=generator)
    if getattr(config, "add_cross_attention", False):
        inputs["encoder_hidden_states"] = torch.randn(2, 6, 24, generator=generator, dtype=torch.float64)
    return inputs


def storages(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every distinct parameter once."""
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            yield name, tensor


def stored(model: Any, layout: str) -> dict[str, torch.Tensor]:
    """Every distinct parameter under its name in a layout; views, so that what is written is the model's."""
    held = dict(storages(model))
    family = model.config.model_type
    if layout == "memory" or family not in (*VISION, *(VARIANTS[name]["model_type"] for name in MIXTURES)):
        return held
    names = ("w1", "w3", "w2") if family == "mixtral" else ("gate_proj", "up_proj", "down_proj")
    found = {}
    for name, tensor in held.items():
        if family == "mixtral":
            name = name.replace(".mlp.", ".block_sparse_moe.")
        if family in VISION:
            name = re.sub(r"\blayers\.", "encoder.layer.", name)
            for new, old in (("fc1", "intermediate.dense"), ("fc2", "output.dense")):
                name = name.replace(f"mlp.{new}", old)
            for new, old in (("q", "query"), ("k", "key"), ("v", "value")):
                name = name.replace(f"attention.{new}_proj", f"attention.attention.{old}")
            name = name.replace("attention.o_proj", "attention.output.dense")
        if name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            stem = name.rpartition(".")[0]
            for x, expert in enumerate(tensor):
                parts = zip(names, expert.chunk(2)) if name.endswith("gate_up_proj") else [(names[2], expert)]
                found |= {f"{stem}.{x}.{part}.weight": value for part, value in parts}
        else:
            found[name] = tensor
    return found
