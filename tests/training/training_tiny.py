"""Small models, blocks and runs for the tests of training; also runs as a script in processes of its own."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from warmstart.training import TrainResult, TrainSettings, train

LENGTH = 24


class ArrayBlocks:
    """Random blocks with something to learn: each id is followed by its neighbour more often than not."""

    def __init__(self, count: int = 40, length: int = LENGTH, vocab: int = 256, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        ids = rng.integers(0, vocab, (count, length))
        for i in range(1, length):
            follow = rng.random(count) < 0.7
            ids[follow, i] = (ids[follow, i - 1] + 1) % vocab
        self.ids = ids.astype(np.uint16)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.ids.tobytes()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.ids[index]


@functools.cache
def byte_tokenizer() -> PreTrainedTokenizerFast:
    """The 256 bytes, then special tokens and sentinels."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
        additional_special_tokens=[f"<extra_id_{i}>" for i in range(20)],
    )


def llama(*, dropout: float = 0.0, tied: bool = True, seed: int = 0, kv_heads: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(byte_tokenizer()),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=kv_heads,
        max_position_embeddings=64,
        attention_dropout=dropout,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def bert(*, dropout: float = 0.1) -> BertForMaskedLM:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(byte_tokenizer()),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForMaskedLM(config)


def t5(*, dropout: float = 0.1) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(byte_tokenizer()),
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_heads=2,
        dropout_rate=dropout,
        pad_token_id=byte_tokenizer().pad_token_id,
        decoder_start_token_id=byte_tokenizer().pad_token_id,
    )
    return T5ForConditionalGeneration(config)


MODELS = {"llama": llama, "bert": bert, "t5": t5}


def evaluate(model: Any) -> float:
    """A number that depends on all weights: the loss of fixed text. Draws random numbers on the side."""
    _ = torch.rand(3), np.random.rand(3)
    assert not model.training
    ids = torch.from_numpy(ArrayBlocks(4, seed=9).ids.astype(np.int64))
    labels = {"labels": ids} if hasattr(model.config, "vocab_size") else {}
    return float(model(input_ids=ids, **labels).loss)


def settings(**changes: Any) -> TrainSettings:
    usual = {
        "block_size": LENGTH,
        "max_steps": 12,
        "per_device_train_batch_size": 4,
        "learning_rate": 3e-3,
        "save_steps": 4,
        "save_seconds": None,
        "logging_steps": 3,
        "eval_points": [0.25, 0.5],
        "eval_steps": None,
    }
    return TrainSettings(**{**usual, **changes})


def run(
    folder: Path, *, kind: str = "llama", model: Any = None, resume: bool = True, **changes: Any
) -> TrainResult:
    """Train a tiny model in `folder`."""
    given = MODELS[kind]() if model is None else model
    blocks = ArrayBlocks()
    return train(
        given, byte_tokenizer(), blocks, settings(**changes), folder, evaluate=evaluate, resume=resume
    )


def curve(result_or_folder: TrainResult | Path) -> list[tuple[Any, ...]]:
    """The curve but for its times."""
    if isinstance(result_or_folder, Path):
        events = [json.loads(line) for line in (result_or_folder / "events.jsonl").read_text().splitlines()]
        timed = ("seconds", "tokens_per_second")
        return [tuple((k, v) for k, v in event.items() if k not in timed) for event in events]
    return [(p.step, p.tokens, p.flops, p.bpb, p.train_loss) for p in result_or_folder.curve.points]


def weights(checkpoint: Path, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    with safe_open(checkpoint / file, framework="pt") as handle:
        return {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118


def same_bits(a: Path, b: Path) -> bool:
    """Whether two checkpoints hold bitwise the same weights and moments."""
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, two = weights(a, file), weights(b, file)
        if one.keys() != two.keys() or not all(torch.equal(one[k], two[k]) for k in one):
            return False
    return True


def environment() -> dict[str, str]:
    """For subprocesses: one thread, no network."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


if __name__ == "__main__":  # python training_tiny.py FOLDER KIND '{"settings": …}'
    torch.set_num_threads(1)
    from torch.distributed.fsdp import FSDPModule

    from warmstart.training import engine

    def checked_shard(module: Any, *rest: Any, original: Any = engine.shard) -> None:
        original(module, *rest)
        assert sum(isinstance(part, FSDPModule) for part in module.modules()) == 3  # two layers and the rest

    engine.shard = checked_shard
    folder, kind, changes = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    run(folder, kind=kind, model=bert(dropout=0.0) if kind == "bert" else None, **changes)
