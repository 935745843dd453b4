"""Small worlds with known truth for the tests of vectors, alignments and rows."""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import regex
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from warmstart.corpus.document import Document
from warmstart.vocabulary.map import VocabMap
from warmstart.vocabulary.rows._base import RowContext


class Texts:
    """A list of strings that looks like a corpus."""

    name = "texts"

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(texts)
        self.fingerprint = hashlib.sha256("\0".join(self.texts).encode()).hexdigest()[:16]

    def documents(self, split: str = "train") -> Iterator[Document]:
        return (Document(text, str(i)) for i, text in enumerate(self.texts))


@cache
def english(size: int = 800_000) -> tuple[str, ...]:
    """Paragraphs of English prose: docstrings of the standard library's top modules."""
    found: dict[str, None] = {}
    total = 0
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (
                text := ast.get_docstring(node)
            ):
                for paragraph in text.split("\n\n"):
                    line = " ".join(paragraph.split())
                    if len(line) > 40 and ">>>" not in line and line not in found:
                        found[line] = None
                        total += len(line)
        if total > size:
            break
    return tuple(found)


def encipher(text: str) -> str:
    """Word cipher: each word becomes a pseudo-word in Greek letters; digits and punctuation stay."""
    return regex.sub(r"[A-Za-z]+", lambda match: cipher_word(match[0].lower()), text)


@cache
def cipher_word(word: str) -> str:
    digest = hashlib.sha256(word.encode()).digest()
    letters = "αβγδεζηθικλμνξοπρστυφχψω"
    return "".join(letters[b % 24] for b in digest[: 5 + digest[31] % 4])


def byte_bpe(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>")


def whole_words(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer whose tokens are given words."""
    vocabulary = {word: i for i, word in enumerate(["[UNK]", "[PAD]", *dict.fromkeys(words)])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


def context(
    source: PreTrainedTokenizerFast, target: PreTrainedTokenizerFast, *, dim: int = 16, **options: object
) -> RowContext:
    vocab = VocabMap.build(source, target)
    rows = np.random.default_rng(0).standard_normal((vocab.source_size, dim)).astype(np.float32)
    return RowContext(vocab, source, target, rows, **options)  # type: ignore[arg-type]
