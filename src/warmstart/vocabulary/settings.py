"""Options of the vocabulary operations: train a tokenizer, transplant a vocabulary, initialise a model."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from warmstart.corpus.settings import CorpusSettings
from warmstart.foundation.errors import UserError
from warmstart.foundation.registry import Entry
from warmstart.foundation.settings import Settings
from warmstart.foundation.tasks import Task

Kind = Literal["bpe", "unigram", "wordpiece", "bytes"]


class TokenizerSettings(Settings):
    """Train a tokenizer on text, in the manner of another one or from the usual parts of its kind."""

    corpus: CorpusSettings
    """Text to train on (its `train` split); `bytes` is only measured on it."""
    vocab_size: int = Field(default=32000, ge=64)
    """Tokens in all, special ones included. Fewer come out where the text does not support more; `bytes`
    always has 256, its special tokens and its sentinels."""
    like: str | None = None
    """Checkpoint, tokenizer folder or tokenizer.json to follow: kind, normaliser, pre-tokeniser, decoder,
    special tokens and their template stay, so that the body of that model reads what it knows."""
    kind: Kind | None = None
    """`bpe` (byte-level), `unigram` (SentencePiece), `wordpiece` or `bytes` (the ids of ByT5: nothing is
    learned); the kind of `like`, else `bpe`."""
    min_frequency: int = Field(default=2, ge=1)
    """Pairs seen less often are not merged (`bpe` and `wordpiece`; `unigram` prunes by likelihood)."""
    lowercase: bool | None = None
    """Lower-case all text first; as in `like`, else false."""
    normalization: Literal["none", "nfc", "nfkc", "bert"] | None = None
    """Unicode normalisation without `like`; `bpe` has `none`, `unigram` `nfkc`, `wordpiece` `bert`."""
    limit_alphabet: int = Field(default=1000, ge=1)
    """Most different characters kept by `wordpiece` and by SentencePiece-like `bpe`."""
    max_piece_length: int = Field(default=16, ge=1)
    """Longest piece of `unigram`, in characters."""
    special_tokens: dict[str, str] = {}
    """Role (`bos`, `eos`, `pad`, `unk`, `mask`, `cls`, `sep`) -> string, without `like`; each kind has its
    usual ones: `<s>`, `<pad>`, `</s>`, `<unk>`, `<mask>`, or `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`."""
    additional_special_tokens: list[str] = []
    """Further special tokens, such as chat marks; those of `like` are kept anyway."""
    template: Literal["none", "bos", "eos", "both"] | None = None
    """Special tokens put around every text without `like`: `none` for `bpe`, `eos` for `bytes`, `both` for
    the others."""
    model_max_length: int | None = Field(default=None, ge=1)
    """Longest input that the model takes, in tokens; that of `like` where not given."""
    supertokens: bool = False
    """Byte-level `bpe` whose tokens may reach over word boundaries: learned from text cut at random places
    instead of between words, and used on whole lines."""
    chunk_weights: list[float] = [0.044, 0.091, 0.146, 0.171, 0.185, 0.171, 0.146, 0.091, 0.044, 0.011]
    """How often `supertokens` cut chunks of 4–5, 6–7, 8–9 … characters, relative to each other."""
    max_token_length: int = Field(default=30, ge=2)
    """Longest token of `supertokens`, in bytes."""
    seed: int = 0
    """Seed of the random cuts of `supertokens`."""
    sentinels: int = Field(default=0, ge=0, le=100_000)
    """Sentinel tokens `<extra_id_0>` … of `bytes`; ByT5 and MonoByte have 125."""
    sentinel_order: Literal["ascending", "descending"] = "ascending"
    """Whether `<extra_id_0>` has the first id behind the bytes (`ByT5Tokenizer` of transformers) or the last
    (its Flax script for span corruption). A checkpoint must go on with the order it was trained with."""

    @model_validator(mode="after")
    def _options_of_one_kind(self) -> Self:
        if self.kind == "bytes" and "vocab_size" in self.model_fields_set:
            raise ValueError("`bytes` has a fixed size; remove `vocab_size`")
        if self.kind != "bytes" and self.sentinels:
            raise ValueError("`sentinels` belong to kind: bytes; use `additional_special_tokens`")
        if self.supertokens and self.kind not in (None, "bpe"):
            raise ValueError("`supertokens` are made by kind: bpe")
        if not sum(self.chunk_weights) > 0 or min(self.chunk_weights) < 0:
            raise ValueError("`chunk_weights` must be numbers from 0 on, not all of them 0")
        return self

    @model_validator(mode="after")
    def _like_decides(self) -> Self:
        fixed = ("normalization", "special_tokens", "template")
        given = [key for key in fixed if key in self.model_fields_set and getattr(self, key)]
        if self.like is not None and given:
            raise ValueError(f"with `like` given, `{given[0]}` is taken from it; remove one of the two")
        return self


class _ForTokenizer(Settings):
    tokenizer: str
    """Tokenizer of the new checkpoint: folder, tokenizer.json, checkpoint or hub id."""
    seed: int = 0
    """Seed of everything random."""
    trust_remote_code: bool = False
    """Run code that the source checkpoint brings along."""


class TransplantSettings(_ForTokenizer):
    """Give a checkpoint a new tokenizer; its rows are filled by an initialiser, all other weights copied."""

    source: str
    """Checkpoint to start from: folder, hub id or `name@revision`."""
    initialiser: str | dict[str, Any] = "mean-of-pieces"
    """How new rows are made: a name, or `{name: …}` with the method's own settings beside it."""
    copy_overlap: bool | None = None
    """Copy the rows of tokens that both vocabularies have; what the method's source does where not given."""
    fuzzy_overlap: bool = False
    """Also copy rows between tokens that differ only in case or in a leading space."""
    norm_match: bool = False
    """Rescale mixed rows to the mean norm of copied rows of the same kind (word start or not). Averaging
    shrinks norms, and small head rows are under-predicted; norms are reported in any case."""
    pad_to_multiple_of: int = Field(default=1, ge=1)
    """Round the number of rows up to this multiple, for speed on accelerators; added rows are mean rows."""
    corpus: CorpusSettings | None = None
    """Text of the new vocabulary, for initialisers that learn from it."""
    source_corpus: CorpusSettings | None = None
    """Text of the source's vocabulary, for initialisers that learn from it."""
    dictionary: str | None = None
    """Word pairs source–target: a file with tabs or a named set such as `dictionary/en-de`."""
    parallel: str | None = None
    """Sentence pairs source–target: a file with tabs or a named set such as `multi30k/en-de`."""

    @model_validator(mode="after")
    def _known_method(self) -> Self:
        self.method()
        return self

    def method(self) -> tuple[Entry[Any], Settings]:
        """The initialiser's registry entry and its validated settings."""
        from warmstart.vocabulary.rows._base import initialisers

        if not isinstance(self.initialiser, str) and not isinstance(self.initialiser.get("name"), str):
            raise UserError(
                "the initialiser has no name", where="initialiser", fix="add name: mean-of-pieces"
            )
        return initialisers.choose(self.initialiser, where="initialiser")


class InitialiseSettings(_ForTokenizer):
    """Make a model with random weights for a tokenizer: the start of training from scratch."""

    like: str | None = None
    """Checkpoint whose architecture and sizes are taken; none of its weights are."""
    config: dict[str, Any] = {}
    """`model_type` and sizes (`hidden_size`, …) as in a config.json; with `like`, what differs from it."""
    task: Task | None = None
    """What the model is for; that of `like`, else what is usual for the model type."""
    pad_to_multiple_of: int = Field(default=1, ge=1)
    """Round the number of rows up to this multiple."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.like is None and not isinstance(self.config.get("model_type"), str):
            raise ValueError("neither `like` nor `config.model_type` says which architecture to make")
        return self
