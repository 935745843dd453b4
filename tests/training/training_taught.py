"""Runs of tiny students with a teacher; also a script for processes of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import training_tiny as tiny
from transformers import LlamaConfig, LlamaForCausalLM

from warmstart.training import TrainResult, train
from warmstart.training.loop import make_objective


def teacher(kind: str = "llama", seed: int = 1) -> Any:
    """Of another size, except for T5 and BERT, with logits large enough to teach something."""
    torch.manual_seed(seed)
    if kind == "llama":
        config = LlamaConfig(
            vocab_size=len(tiny.byte_tokenizer()) + 5,
            hidden_size=48,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=64,
            bos_token_id=None,
            eos_token_id=None,
        )
        made: Any = LlamaForCausalLM(config)
    else:
        made = tiny.MODELS[kind]()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def taught(kind: str = "llama", *, learner: Any = None, who: Any = None, **table: Any) -> Any:
    """The objective `distillation` with such a teacher."""
    asked = {"name": "distillation", **table}
    return make_objective(
        learner or tiny.MODELS[kind](),
        tiny.byte_tokenizer(),
        tiny.settings(objective=asked),
        teacher=who or teacher(kind),
        teacher_tokenizer=tiny.byte_tokenizer(),
    )


def run(
    folder: Path,
    *,
    kind: str = "llama",
    model: Any = None,
    table: Any = None,
    who: Any = None,
    **changes: Any,
) -> TrainResult:
    """Train a tiny student with a teacher in `folder`."""
    given = tiny.MODELS[kind]() if model is None else model
    objective = taught(kind, learner=given, who=who, **(table or {}))
    asked = {"name": "distillation", **(table or {})}
    return train(
        given,
        tiny.byte_tokenizer(),
        tiny.ArrayBlocks(),
        tiny.settings(objective=asked, **changes),
        folder,
        evaluate=tiny.evaluate,
        objective=objective,
    )


if __name__ == "__main__":  # python training_taught.py FOLDER '{"settings": …}' '{"table": …}'
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), table=json.loads(sys.argv[3]), **json.loads(sys.argv[2]))
