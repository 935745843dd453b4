"""What the contract checks need of methods that require a file or a checkpoint, made when first read."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path


class Samples(Mapping[str, str]):
    """Settings whose values are paths of things that are made when they are first asked for.

    Args:
        makers: Setting to the function that makes the thing and returns where it is.
    """

    def __init__(self, **makers: Callable[[], Path]) -> None:
        self._makers = makers

    def __getitem__(self, key: str) -> str:
        return str(self._makers[key]())

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


@functools.cache
def target_model() -> Path:
    """A random model with an untied head whose tokenizer is the target of the contract checks."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from warmstart.checkpoint import Lineage, save_checkpoint
    from warmstart.vocabulary._contracts import _tokenizers

    tokenizer = _tokenizers()[1]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = LlamaForCausalLM(config)
    path = Path(_folder().name) / "target-model"
    save_checkpoint(path, model, tokenizer, lineage=Lineage.of("sample"))
    return path


@functools.cache
def target_features() -> Path:
    """Features of every second target token of the contract checks."""
    import numpy as np

    from warmstart.vocabulary._contracts import _vocab

    names = [token.string for token in _vocab().target if token.role is None][::2]
    vectors = np.random.default_rng(0).standard_normal((len(names), 20)).astype(np.float32)
    path = Path(_folder().name) / "features.npz"
    np.savez(path, words=np.array(names), vectors=vectors)
    return path


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="warmstart-samples-")
