"""What every row initialiser must do, on two small real tokenizers and a random matrix."""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.foundation.contracts import Suite
from warmstart.foundation.errors import UserError
from warmstart.foundation.registry import Entry
from warmstart.vocabulary.rows._base import Initialiser, RowContext, initialisers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from warmstart.vocabulary.map import VocabMap
    from warmstart.vocabulary.mix import RowMix

initialiser_checks = Suite("initialiser", initialisers)
WIDTH = 12
_SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
_WORDS = {  # English -> German, so that dictionaries and parallel text have something to say
    "the": "der", "man": "Mann", "woman": "Frau", "dog": "Hund", "house": "Haus", "street": "Straße",
    "red": "rot", "blue": "blau", "runs": "rennt", "stands": "steht", "plays": "spielt", "water": "Wasser",
    "child": "Kind", "tree": "Baum", "ball": "Ball", "small": "klein", "old": "alt", "sees": "sieht",
    "car": "Auto", "table": "Tisch",
}  # fmt: skip


@initialiser_checks.check()
def fills_every_wanted_row(entry: Entry[Initialiser]) -> None:
    """The mix has shape (V_target, V_source); each wanted row sums to one, or is marked as drawn or mean."""
    for copy_overlap in (True, False):
        context = _context(copy_overlap=copy_overlap)
        mix = _call(entry, context)
        assert mix.weights.shape == context.shape, f"shape {mix.weights.shape}, not {context.shape}"
        mix.check()
        filled = np.diff(mix.weights.indptr) > 0
        total = np.asarray(mix.weights.sum(axis=1)).ravel()[filled]
        assert np.allclose(total, 1, atol=1e-5), "a row does not sum to one"
        rows = _rows(mix)
        assert rows.shape == (context.shape[0], WIDTH), f"rows of shape {rows.shape}"
        assert np.isfinite(rows).all(), "a row is not finite"


@initialiser_checks.check()
def is_deterministic_for_a_seed(entry: Entry[Initialiser]) -> None:
    """Two calls with the same inputs and seed give the same rows to the last bit, whatever ran before."""
    first = _rows(_call(entry, _context()))
    with _global_seed(1):  # a method that uses the global generators is found out
        second = _rows(_call(entry, _context()))
    assert np.array_equal(first, second), f"rows differ by up to {np.abs(first - second).max():.3g}"


@initialiser_checks.check()
def copies_special_tokens_by_role(entry: Entry[Initialiser]) -> None:
    """In the finished matrix special tokens have the row of their role, shared tokens their own old row."""
    from warmstart.vocabulary.transplant import row_mix

    context = _context()
    options = entry.settings.parse(getattr(entry.target, "contract_settings", {}))
    settings: Any = SimpleNamespace(method=lambda: (entry, options))
    rows = _rows(row_mix(settings, context))
    for name, pairs in (("special", context.vocab.roles), ("shared", context.vocab.overlap)):
        assert len(pairs), f"the sample has no {name} tokens"
        wrong = (rows[pairs[:, 0]] != context.rows[pairs[:, 1]]).any(axis=1)
        assert not wrong.any(), f"{wrong.sum()} of {len(pairs)} rows of {name} tokens are not the old ones"


@initialiser_checks.check()
def leaves_its_inputs_alone(entry: Entry[Initialiser]) -> None:
    """Neither the source rows nor the vocabulary map nor the person's data are changed."""
    context = _context(untied=True)
    assert context.head_rows is not None
    before = (
        context.rows.copy(),
        context.head_rows.copy(),
        context.vocab.overlap.copy(),
        context.vocab.roles.copy(),
    )
    dictionary, parallel = list(context.dictionary or []), list(context.parallel or [])
    _call(entry, context)
    after = (context.rows, context.head_rows, context.vocab.overlap, context.vocab.roles)
    assert all(np.array_equal(a, b) for a, b in zip(before, after)), "an array was changed in place"
    assert (dictionary, parallel) == (context.dictionary, context.parallel), "the word pairs were changed"


@initialiser_checks.check()
def leaves_global_randomness_alone(entry: Entry[Initialiser]) -> None:
    """Uses the generator that it is given: the state of `random`, NumPy and torch is what it was."""
    import torch

    states = random.getstate(), _numpy_state(), torch.get_rng_state()
    _call(entry, _context())
    assert random.getstate() == states[0], "`random` was used"
    assert _numpy_state() == states[1], "numpy's global generator was used"
    assert torch.equal(torch.get_rng_state(), states[2]), "torch's global generator was used"


@initialiser_checks.check()
def says_what_it_lacks(entry: Entry[Initialiser]) -> None:
    """Without text, dictionary or parallel sentences it works, or says in a `UserError` what it needs."""
    for missing in ("corpus", "source_corpus", "dictionary", "parallel"):
        _works_or_says(entry, **{missing: None})
    _works_or_says(entry, corpus=None, source_corpus=None, dictionary=None, parallel=None)


@initialiser_checks.check()
def does_not_depend_on_precision(entry: Entry[Initialiser]) -> None:
    """A float64 source gives the same rows as a float32 one, up to rounding."""
    narrow, wide = _context(), _context(dtype=np.float64)
    a, b = _rows(_call(entry, narrow)), _rows(_call(entry, wide), wide.rows)
    assert np.allclose(a, b, atol=1e-4), f"rows differ by up to {np.abs(a - b).max():.3g}"


@initialiser_checks.check(tags=("mix",))
def mixes_real_rows(entry: Entry[Initialiser]) -> None:
    """At least half of the wanted rows are mixtures of source rows rather than drawn at random."""
    context = _context()
    mix = _call(entry, context)
    mixed = (np.diff(mix.weights.indptr) > 0)[context.wanted]
    assert mixed.mean() >= 0.5, f"only {mixed.mean():.0%} of the wanted rows are mixtures"


@initialiser_checks.check(tags=("mix",))
def ignores_source_rows_without_a_token(entry: Entry[Initialiser]) -> None:
    """Padding rows of the source, which no token uses, never enter a mixture."""
    context = _context()
    mix = _call(entry, context)
    padding = np.arange(len(context.vocab.source), context.rows.shape[0])
    assert len(padding), "the sample has no padding rows"
    assert mix.weights[:, padding].nnz == 0, "a row is mixed from untrained padding"


@initialiser_checks.check(tags=("convex",))
def weights_are_convex(entry: Entry[Initialiser]) -> None:
    """No negative weight: every mixed row lies between source rows."""
    mix = _call(entry, _context())
    assert not len(mix.weights.data) or mix.weights.data.min() >= 0, f"weight {mix.weights.data.min()}"


@initialiser_checks.check(tags=("fallback",))
def draws_with_the_seed(entry: Entry[Initialiser]) -> None:
    """Another seed gives other rows: paired seeds of a comparison must differ."""
    first, second = (_rows(_call(entry, _context(seed=seed)), seed=seed) for seed in (0, 1))
    assert not np.allclose(first, second), "two seeds give the same rows"


def _call(entry: Entry[Initialiser], context: RowContext) -> RowMix:
    return entry.target(context, entry.settings.parse(getattr(entry.target, "contract_settings", {})))


def _rows(mix: RowMix, rows: np.ndarray | None = None, *, seed: int = 0) -> np.ndarray:
    source = _matrix(np.float32) if rows is None else rows
    return np.asarray(mix.apply(source, rng=np.random.default_rng(seed)))


def _works_or_says(entry: Entry[Initialiser], **absent: None) -> None:
    try:
        _call(entry, replace(_context(), **absent))  # type: ignore[arg-type]
    except UserError as error:
        assert any(name.replace("_", " ") in error.sentence for name in absent), (
            f"the message does not name what is missing: {error.sentence}"
        )


def _context(
    *, seed: int = 0, copy_overlap: bool = True, untied: bool = False, dtype: Any = np.float32
) -> RowContext:
    """A fresh context: English source with padded rows, German target, text, dictionary, sentence pairs."""
    source, target = _tokenizers()
    english, german = _sentences()
    rows = _matrix(dtype)
    return RowContext(
        vocab=_vocab(),
        source_tokenizer=source,
        target_tokenizer=target,
        rows=rows,
        head_rows=rows[::-1].copy() if untied else None,
        corpus=_corpus("german"),
        source_corpus=_corpus("english"),
        dictionary=list(_WORDS.items()),
        parallel=list(zip(english, german)),
        rng=np.random.default_rng(seed),
        seed=seed,
        config={"model_type": "llama", "initializer_range": 0.02},
        copy_overlap=copy_overlap,
    )


@functools.cache
def _sentences() -> tuple[list[str], list[str]]:
    words, rng = list(_WORDS), np.random.default_rng(7)
    english = [" ".join(rng.choice(words, size=int(rng.integers(4, 9)))) for _ in range(300)]
    return english, [" ".join(_WORDS[word] for word in line.split()) for line in english]


@functools.cache
def _tokenizers() -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    english, german = _sentences()
    return _train(english, 300), _train(german, 330)


def _train(lines: list[str], size: int) -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(_SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **_SPECIAL)


@functools.cache
def _vocab() -> VocabMap:
    from warmstart.vocabulary.map import VocabMap

    source, target = _tokenizers()
    return VocabMap.build(source, target, source_size=len(source) + 5)


def _matrix(dtype: Any) -> np.ndarray:
    return (
        np.random.default_rng(3)
        .standard_normal((len(_tokenizers()[0]) + 5, WIDTH), dtype=np.float32)
        .astype(dtype)
    )


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="warmstart-checks-")
    for name, lines in zip(("english", "german"), _sentences()):
        (Path(folder.name) / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _corpus(name: str) -> Any:
    from warmstart.corpus import open_corpus

    return open_corpus(str(Path(_folder().name) / f"{name}.txt"))


def _numpy_state() -> str:
    """The whole state: the words alone stay the same for hundreds of draws, only the position moves."""
    state = np.random.get_state(legacy=False)
    return repr((state["state"]["key"].tolist(), state["state"]["pos"]))


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    import torch

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
