"""Tiny random models of every family, in float64, with every parameter random (biases and norms too)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerFast
from vocab_tokenizers import STYLES

from warmstart.checkpoint import Lineage, save_checkpoint
from warmstart.checkpoint.architecture import auto_class
from warmstart.vocabulary.initialise import untie

_SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_LLAMA = {**_SMALL, "num_key_value_heads": 1, "max_position_embeddings": 64}
_BERT = {**_SMALL, **_NO_DROPOUT, "max_position_embeddings": 66}
_GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
FAMILIES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    # name: (model type, task, tokenizer style, config)
    "llama": ("llama", "causal", "llama", _LLAMA),
    "mistral": ("mistral", "causal", "llama", _LLAMA | {"head_dim": 8}),
    "qwen2": ("qwen2", "causal", "qwen", _LLAMA),
    "qwen3": ("qwen3", "causal", "bpe", _LLAMA | {"head_dim": 8}),
    "gpt2": ("gpt2", "causal", "gpt2", _GPT2 | {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}),
    "gpt_neox": ("gpt_neox", "causal", "bpe", {**_SMALL, "max_position_embeddings": 64}),
    "bert": ("bert", "masked", "wordpiece", _BERT),
    "roberta": ("roberta", "masked", "bpe", _BERT),
    "xlm-roberta": ("xlm-roberta", "masked", "unigram", _BERT),
    "t5": ("t5", "seq2seq", "t5", _T5 | {"dropout_rate": 0.0}),
    "t5-v1.1": ("t5", "seq2seq", "t5", _T5 | {"dropout_rate": 0.0, "feed_forward_proj": "gated-gelu"}),
}
TIED = {"t5": (True,), "t5-v1.1": (False,)}
CASES = [(name, tied) for name in FAMILIES for tied in TIED.get(name, (True, False))]


def save_source(
    folder: Path, family: str, tied: bool, *, extra_rows: int = 0, dtype: torch.dtype = torch.float64
) -> PreTrainedTokenizerFast:
    """Write a random checkpoint of the family and return its tokenizer."""
    kind, task, style, sizes = FAMILIES[family]
    tokenizer = STYLES[style]()
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    if kind == "t5":
        ids["decoder_start_token_id"] = tokenizer.pad_token_id
    config = AutoConfig.for_model(
        kind, **sizes, **ids, vocab_size=len(tokenizer) + extra_rows, tie_word_embeddings=tied
    )
    save_checkpoint(folder, random_model(config, task, dtype), tokenizer, lineage=Lineage.of("test"))
    return tokenizer


def random_model(config: Any, task: str, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    torch.manual_seed(0)
    model = auto_class(task).from_config(config).to(dtype).eval()
    if config.model_type == "t5" and not config.scale_decoder_outputs:
        untie(model)  # transformers 5 unties T5 v1.1 only when it reads two different matrices
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.3)
    return model


def loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: list[str], task: str) -> float:
    """Mean loss over texts: next tokens, masked tokens at fixed places, or the second half of each text."""
    total = 0.0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        labels, inputs = ids[:, 1:], {"input_ids": ids}
        if task == "masked":
            places = torch.arange(1, ids.shape[1] - 1, 3)
            labels = ids[:, places]
            inputs = {"input_ids": ids.index_fill(1, places, tokenizer.mask_token_id)}
        elif task == "seq2seq":
            half = ids.shape[1] // 2
            labels = ids[:, half:]
            inputs = {"input_ids": ids[:, :half], "labels": labels}
        with torch.no_grad():
            logits = model(**inputs).logits
        if task != "seq2seq":
            logits = logits[:, places] if task == "masked" else logits[:, :-1]
        assert logits.dtype == model.dtype  # the loss that transformers returns is computed in float32
        total += float(torch.nn.functional.cross_entropy(logits[0], labels[0]))
    return total / len(texts)
