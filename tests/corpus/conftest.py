"""Fixtures of the corpus tests: small files and small tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpus_samples import TEXTS, compress, encode


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write("a.jsonl.gz", texts)` or `write("a.txt", b"bytes")` → path below the test's folder."""

    def make(name: str, content: list[str] | str | bytes, **more: list[Any]) -> Path:
        path = tmp_path / name
        compression = path.suffix if path.suffix in (".gz", ".zst") else ""
        inner = Path(name.removesuffix(compression)).suffix
        if isinstance(content, list):
            data = encode(content, inner, **more)
        else:
            data = content.encode() if isinstance(content, str) else content
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(compress(data, compression))
        return path

    return make


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """`make_tokenizer(vocab_size=300, eos="<eos>")` → a byte-level tokenizer that decodes exactly."""

    def make(vocab_size: int = 300, eos: str | None = "<eos>", extra: int = 0, **roles: str) -> Any:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
        from transformers import PreTrainedTokenizerFast

        inner = Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        special = [*([eos] if eos else []), *roles.values()]
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        inner.train_from_iterator([*TEXTS, "the other of the and the then there"] * 3, trainer)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=eos, **roles)
        if extra:
            tokenizer.add_tokens([f"<extra-{i}>" for i in range(extra)])
        return tokenizer

    return make
