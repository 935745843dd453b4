"""Tiny random models of every family and variant, with weights that leave no tensor without effect."""

from __future__ import annotations

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
}


def variants() -> Any:
    """Decorator: run a test once per variant."""
    return pytest.mark.parametrize("variant", VARIANTS)


def config_of(variant: str, **changes: Any) -> Any:
    """The transformers config of a variant."""
    values = {**VARIANTS[variant], **changes}
    model_type = values.pop("model_type")
    return transformers.AutoConfig.for_model(model_type, **values, attn_implementation="eager")


def task_class(config: Any) -> Any:
    """The auto class with the language-model head."""
    if config.model_type in ("t5", "mt5"):
        return transformers.AutoModelForSeq2SeqLM
    if "bert" in config.model_type:
        return transformers.AutoModelForMaskedLM
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
        float32 = torch.float64

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        for name in {type(module).__module__ for module in model.modules()}:
            if name.startswith("transformers."):
                patch.setattr(sys.modules[name], "torch", Torch(), raising=False)
        yield


def inputs_of(model: Any) -> dict[str, torch.Tensor]:
    """A batch of 2 sequences of 7 tokens with explicit positions; never the padding token."""
    generator = torch.Generator().manual_seed(1)
    config = model.config
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
