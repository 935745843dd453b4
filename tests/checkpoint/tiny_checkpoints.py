"""Tiny random models and tokenizers of every family, saved as our own checkpoints."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    BertConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
)

TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "pack my box with five dozen liquor jugs",
    "Grüße!",
] * 4
ROWS = 300
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CONFIGS = {
    "llama": lambda **k: LlamaConfig(vocab_size=ROWS, num_key_value_heads=1, **SMALL, **k),
    "gpt2": lambda **k: GPT2Config(vocab_size=ROWS, n_embd=16, n_layer=2, n_head=2, n_positions=64, **k),
    "gpt_neox": lambda **k: GPTNeoXConfig(vocab_size=ROWS, **SMALL, **k),
    "bert": lambda **k: BertConfig(vocab_size=ROWS, max_position_embeddings=64, **SMALL, **k),
    "roberta": lambda **k: RobertaConfig(
        vocab_size=ROWS, max_position_embeddings=66, pad_token_id=1, **SMALL, **k
    ),
    "t5": lambda **k: T5Config(vocab_size=ROWS, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, **k),
}
AUTO = {
    "llama": AutoModelForCausalLM,
    "gpt2": AutoModelForCausalLM,
    "gpt_neox": AutoModelForCausalLM,
    "bert": AutoModelForMaskedLM,
    "roberta": AutoModelForMaskedLM,
    "t5": AutoModelForSeq2SeqLM,
}
TASK = {
    "llama": "causal",
    "gpt2": "causal",
    "gpt_neox": "causal",
    "bert": "masked",
    "roberta": "masked",
    "t5": "seq2seq",
}


def tiny_model(family: str, **options):
    """A random model; every parameter is drawn, so that biases and gains are no zeros and ones."""
    torch.manual_seed(1)
    model = AUTO[family].from_config(CONFIGS[family](**options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


def bpe(size: int = 280) -> PreTrainedTokenizerFast:
    """Byte-level BPE with the roles of a causal model."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    raw.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=size, special_tokens=specials, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


def wordpiece() -> PreTrainedTokenizerFast:
    """Lower-casing WordPiece with the roles of BERT."""
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer()
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    raw.train_from_iterator(TEXT, trainers.WordPieceTrainer(vocab_size=120, special_tokens=specials))
    raw.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=raw, **{f"{k}_token": v for k, v in roles.items()})


def unigram() -> PreTrainedTokenizerFast:
    """Unigram with the roles of T5."""
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Metaspace()
    raw.train_from_iterator(
        TEXT,
        trainers.UnigramTrainer(vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def tokenizer_for(family: str) -> PreTrainedTokenizerFast:
    return {"bert": wordpiece, "t5": unigram}.get(family, bpe)()


def edit_json(file: Path, **changes) -> None:
    table = json.loads(file.read_text())
    table.update(changes)
    file.write_text(json.dumps({k: v for k, v in table.items() if v is not ...}))


def poke(file: Path, tensor: str, value: float) -> None:
    """Overwrite the last value of a stored float32 tensor, leaving the structure whole."""
    raw = bytearray(file.read_bytes())
    length = int.from_bytes(raw[:8], "little")
    entry = json.loads(raw[8 : 8 + length])[tensor]
    assert entry["dtype"] == "F32"
    end = 8 + length + entry["data_offsets"][1]
    raw[end - 4 : end] = struct.pack("<f", value)
    file.write_bytes(raw)


def same_weights(left, right) -> bool:
    a, b = left.state_dict(), right.state_dict()
    return a.keys() == b.keys() and all(
        np.array_equal(a[k].numpy().view(np.uint8), b[k].numpy().view(np.uint8)) for k in a if a[k].ndim
    )
