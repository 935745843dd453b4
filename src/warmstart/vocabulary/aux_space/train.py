"""Static vectors trained on the user's own text, token-level or word-level, cached by fingerprint."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from warmstart.foundation.errors import UserError
from warmstart.foundation.files import cache_home
from warmstart.foundation.settings import Settings, digest
from warmstart.vocabulary.aux_space.compose import token_strings
from warmstart.vocabulary.aux_space.space import AuxSpace, NgramTable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from warmstart.corpus import Corpus

_VERSION = 1  # bump when the same settings give other vectors
_LINE = 1000  # tokens per line of the training file; gensim cuts longer lines off


class StaticSettings(Settings):
    """How static vectors are trained. Defaults are FOCUS's (fastText CBOW on tokenised text)."""

    level: Literal["token", "word"] = "token"
    """Units that get vectors: tokens of the tokenizer, or words (runs of letters, marks and digits; other
    characters alone). Scripts without spaces want `token`."""
    algorithm: Literal["cbow", "skipgram"] = "cbow"
    """Predict a unit from its window, or the window from the unit (slower, better for rare units)."""
    dim: int = Field(default=100, ge=1)
    """Dimensions of a vector. FOCUS's code has 100, its paper 300."""
    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Passes over the text. `auto`: the published number (3 for tokens, FOCUS; 20 for words, WECHSEL's code),
    and up to 30 where that would show less than 5 million units: vectors of a small text need them."""
    negative: int = Field(default=10, ge=1)
    """Negative samples per prediction."""
    min_count: int = Field(default=10, ge=1)
    """Units seen less often get no vector."""
    window: int = Field(default=5, ge=1)
    """Units on each side that count as context."""
    subsample: float = Field(default=1e-3, ge=0)
    """Threshold above which frequent units are thinned out. fastText has 1e-4, which leaves too little of a
    text under some megabytes."""
    learning_rate: float = Field(default=0.05, gt=0)
    """First step size, falling linearly to zero."""
    min_n: int = Field(default=3, ge=0)
    """Shortest character n-gram; 0 for plain word2vec."""
    max_n: int = Field(default=6, ge=0)
    """Longest character n-gram; 0 for plain word2vec."""
    buckets: int = Field(default=200_000, ge=1)
    """Slots for hashed n-grams. fastText has 2,000,000, which at 100 dimensions is 800 MB."""
    seed: int = 0
    """Seed of the vectors."""
    workers: int = Field(default=1, ge=1)
    """Threads. Above 1 the vectors differ a little from run to run."""
    max_bytes: int = Field(default=100_000_000, ge=1)
    """UTF-8 bytes of text used at most, from the start of the train split."""

    @model_validator(mode="after")
    def _ngrams(self) -> Self:
        if (self.min_n == 0) != (self.max_n == 0) or self.max_n < self.min_n:
            raise ValueError("min_n and max_n must both be 0, or 1 <= min_n <= max_n")
        return self


def train_space(
    corpus: Corpus,
    settings: StaticSettings,
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    cache: Path | None = None,
) -> AuxSpace:
    """Train vectors on the train split of `corpus`, or read them from the cache.

    fastText (arXiv 1607.04606) or, without n-grams, word2vec (arXiv 1301.3781), by gensim. With one worker
    equal text, settings and seed give equal vectors.

    Args:
        corpus: Text.
        settings: How.
        tokenizer: Needed for `level: token`; row index = token id then, names are raw token strings, and
            tokens seen fewer than `min_count` times are unknown (fastText's `in` means the same).
        cache: Folder for finished vectors (default: `vectors` in the cache folder).

    Returns:
        Word-level spaces carry their n-gram table; token-level ones do not.

    Raises:
        UserError: No unit occurs `min_count` times.
    """
    if settings.level == "token" and tokenizer is None:
        raise ValueError("token-level vectors need a tokenizer")
    folder = cache_home() / "vectors" if cache is None else cache
    owner = tokenizer_fingerprint(tokenizer) if tokenizer and settings.level == "token" else None
    chosen = settings.model_dump(mode="json", exclude={"workers"} if settings.workers == 1 else set())
    path = folder / f"{digest([_VERSION, chosen, corpus.fingerprint, owner])}.npz"
    if (found := _read(path)) is not None:
        return found
    names = _token_names(tokenizer) if tokenizer and settings.level == "token" else None
    with tempfile.TemporaryDirectory(prefix="warmstart-vectors-") as temporary:
        file = Path(temporary) / "units.txt"
        _write_units(file, corpus, settings, tokenizer, names)
        vectors = _train(file, settings, corpus.name)
    space = _by_word(vectors, settings) if names is None else _by_token(vectors, names, tokenizer)
    _write(path, space)
    return space


def words_of(text: str) -> list[str]:
    """Words (runs of letters, combining marks and digits) and other visible characters, one by one."""
    return _splitter()(text)


def epochs_for(units: int, settings: StaticSettings) -> int:
    """Passes over a text of so many units."""
    if settings.epochs != "auto":
        return settings.epochs
    published = 3 if settings.level == "token" else 20
    return max(published, min(30, -(-5_000_000 // max(1, units))))


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """Hash of everything that decides how text becomes ids."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16]


def _splitter() -> Callable[[str], list[str]]:
    import regex

    return regex.compile(r"[\p{L}\p{M}\p{N}_]+|[^\s]").findall


def _token_names(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Unique strings without spaces, one per id, that show the token's text to the n-grams."""
    from warmstart.vocabulary.tokens import canonical_tokens

    names: list[str] = []
    used: set[str] = set()
    for token in canonical_tokens(tokenizer):
        name = ("▁" if token.starts_word else "") + token.text if token.is_text else token.string
        if not name or name in used or any(character.isspace() for character in name):
            name = token.string
        if not name or name in used or any(character.isspace() for character in name):
            name = f"<{token.id}>"
        used.add(name)
        names.append(name)
    return names


def _limited(corpus: Corpus, max_bytes: int) -> Iterator[str]:
    left = max_bytes
    for document in corpus.documents("train"):
        if left <= 0:
            return
        left -= len(document.text.encode())
        yield document.text


def _write_units(
    path: Path,
    corpus: Corpus,
    settings: StaticSettings,
    tokenizer: PreTrainedTokenizerFast | None,
    names: list[str] | None,
) -> None:
    """The text as one line per document (or piece of one), units separated by spaces."""
    with path.open("w", encoding="utf-8") as file:

        def put(units: list[str]) -> None:
            for start in range(0, len(units), _LINE):
                file.write(" ".join(units[start : start + _LINE]) + "\n")

        texts = _limited(corpus, settings.max_bytes)
        if names is None or tokenizer is None:
            split = _splitter()
            for text in texts:
                put(split(text))
            return
        for batch in _batches(texts, 256):
            encoded = tokenizer(batch, add_special_tokens=False, return_attention_mask=False, verbose=False)
            for ids in encoded["input_ids"]:
                put([names[i] for i in ids])


def _batches(texts: Iterator[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _train(file: Path, settings: StaticSettings, name: str) -> Any:
    from gensim.models import FastText, Word2Vec

    options: dict[str, Any] = {
        "vector_size": settings.dim,
        "negative": settings.negative,
        "min_count": settings.min_count,
        "window": settings.window,
        "sample": settings.subsample,
        "alpha": settings.learning_rate,
        "sg": int(settings.algorithm == "skipgram"),
        "seed": settings.seed,
        "workers": settings.workers,
        "hashfxn": _stable_hash,
    }
    ngrams = {"min_n": settings.min_n, "max_n": settings.max_n, "bucket": settings.buckets}
    model = FastText(**options, **ngrams) if settings.max_n else Word2Vec(**options)
    model.build_vocab(corpus_file=str(file))
    if not len(model.wv):
        raise UserError(
            f"no {settings.level} occurs {settings.min_count} times in the text",
            where=name,
            fix="give more text or lower min_count",
        )
    units = model.corpus_total_words
    epochs = epochs_for(units, settings)
    model.train(corpus_file=str(file), total_words=units, total_examples=model.corpus_count, epochs=epochs)
    return model.wv


def _stable_hash(text: str) -> int:  # Python's own differs between processes
    return int.from_bytes(hashlib.md5(text.encode()).digest()[:4], "little")


def _by_word(vectors: Any, settings: StaticSettings) -> AuxSpace:
    table = None
    if settings.max_n:
        used = np.unique(np.concatenate([np.asarray(ids, np.int64) for ids in vectors.buckets_word]))
        trained = np.zeros_like(vectors.vectors_ngrams, dtype=np.float32)
        trained[used] = vectors.vectors_ngrams[used]  # the others are as they were drawn: noise
        table = NgramTable(trained, settings.min_n, settings.max_n)
    counts = [vectors.get_vecattr(word, "count") for word in vectors.index_to_key]
    return AuxSpace.of(vectors.index_to_key, vectors.vectors, counts, table)


def _by_token(vectors: Any, names: list[str], tokenizer: Any) -> AuxSpace:
    matrix = np.zeros((len(names), vectors.vector_size), dtype=np.float32)
    counts = np.zeros(len(names), dtype=np.int64)
    for token, name in enumerate(names):
        if name in vectors.key_to_index:
            matrix[token] = vectors.vectors[vectors.key_to_index[name]]
            counts[token] = vectors.get_vecattr(name, "count")
    matrix[tokenizer.all_special_ids] = 0.0
    return AuxSpace.of(token_strings(tokenizer), matrix, counts)


def _write(path: Path, space: AuxSpace) -> None:
    from warmstart.vocabulary.aux_space.formats import to_npz

    to_npz(path, space)


def _read(path: Path) -> AuxSpace | None:
    from warmstart.vocabulary.aux_space.formats import from_npz

    return from_npz(path) if path.is_file() else None
