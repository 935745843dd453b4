"""Options of the operations that change a tokenizer: extend it, drop tokens that a text does not use."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.settings import Settings


class ExtendSettings(Settings):
    """Give a tokenizer new tokens inside its model: existing ids stay, new ones are appended."""

    source: str
    """Tokenizer to extend: folder, tokenizer.json, checkpoint, hub id or named source."""
    corpus: CorpusSettings | None = None
    """Text from which new tokens are taken (`count`, `words`), and on which the change is measured."""
    count: int | None = Field(default=None, ge=1)
    """How many new tokens to take from the corpus. Few are often better than many: each needs text to be
    learned from. Fewer come out where the text does not support more."""
    words: int | None = Field(default=None, ge=1)
    """Instead of `count`: how many of the most frequent words of the corpus to add that are several pieces
    now. A `bpe` word of three pieces or more passes through others, which become tokens too and come on top;
    with `merges: whole` exactly these words are added, and only where they are whole words."""
    tokens: list[str] = []
    """New tokens as text, instead of `count`: words; phrases where the tokenizer does not cut at spaces."""
    tokens_file: str | None = None
    """The same from a UTF-8 file with one token per line; spaces at its ends belong to it."""
    form: Literal["word", "literal", "both"] = "word"
    """What a string in `tokens` stands for. `word`: the word as it stands behind a space. `literal`: exactly
    these characters; without a space in front they continue a word (`##` in WordPiece). `both`: both."""
    existing: Literal["error", "skip"] = "error"
    """What to do with a string in `tokens` that is a token already."""
    merges: Literal["last", "first", "whole"] = "last"
    """Where `bpe` merges of new tokens go. `last`: behind all others, so that only text in which the pieces
    of a new token stand side by side is cut in another way. `first`: before them, as the released code of
    LowRes-CVE does, which cuts old text in other ways as well; the change report says how much. `whole`: no
    merges; new tokens stand for whole words (all that stands between two cuts of the pre-tokeniser) only.
    transformers opens some model types, qwen2 among them, with a class that does not know `whole`."""
    scores: Literal["pieces", "auxiliary", "zero"] = "pieces"
    """Scores of new `unigram` pieces. `pieces`: just above the best cut of the piece into others.
    `auxiliary`: its log-probability on the corpus, on the scale of the old scores, where that is more.
    `zero`: probability 1, as the released code has it."""
    margin: float = Field(default=0.1, gt=0)
    """How far above its best cut a `unigram` piece scores, in nats."""
    min_uses: int = Field(default=1, ge=1)
    """Tokens from the corpus that it then uses less often are replaced by the next candidates; `words` that
    occur less often are left out."""
    auxiliary_size: int = Field(default=50_000, ge=64)
    """Tokens of the auxiliary tokenizer whose first pieces are the candidates."""
    max_bytes: int = Field(default=50_000_000, ge=1)
    """UTF-8 bytes of the corpus to read at most; they are held in memory."""
    source_corpus: CorpusSettings | None = None
    """Text that the tokenizer was made for: how much of it will be cut in another way?"""
    trust_remote_code: bool = False
    """Run code that the source checkpoint brings along."""

    @model_validator(mode="after")
    def _one_source_of_tokens(self) -> Self:
        given = [name for name in ("count", "words", "tokens", "tokens_file") if getattr(self, name)]
        if not given:
            raise ValueError("neither `count` nor `words` (with `corpus`) nor `tokens` says what to add")
        if len(given) > 1:
            raise ValueError(f"`{given[0]}` and `{given[1]}` are both given; choose one")
        if given[0] in ("count", "words") and self.corpus is None:
            raise ValueError(f"`{given[0]}` takes tokens from a text; give `corpus`")
        if self.scores == "auxiliary" and not self.count:
            raise ValueError("`scores: auxiliary` needs `corpus` and `count`")
        return self


class DropSettings(Settings):
    """Remove the tokens that a text does not use and number the others anew."""

    source: str
    """Tokenizer to shrink: folder, tokenizer.json, checkpoint, hub id or named source."""
    corpus: CorpusSettings
    """Text whose tokens are kept (its `train` split decides, its `valid` split is measured)."""
    min_uses: int = Field(default=1, ge=1)
    """Tokens used less often are removed."""
    keep: list[str] = []
    """Tokens that stay in any case, as the vocabulary writes them (`Ġthe`, `▁the`, `##ing`)."""
    keep_alphabet: bool | None = None
    """Whether all single characters stay. By default they do where a missing one would be unknown, and may
    go where the tokenizer writes unknown characters as bytes."""
    max_bytes: int | None = Field(default=None, ge=1)
    """UTF-8 bytes of the corpus to read at most; all of it by default."""
    source_corpus: CorpusSettings | None = None
    """Other text: how much of it will be cut in another way?"""
    trust_remote_code: bool = False
    """Run code that the source checkpoint brings along."""
