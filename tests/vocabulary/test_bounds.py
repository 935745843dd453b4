"""What new head rows can and cannot do to old text: two bounds, and the theorem of arXiv 2407.05841."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from aux_worlds import Texts, cipher_word, context
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from vocab_donors import save_donor
from vocab_families import FAMILIES, loss, save_source
from vocab_tokenizers import sentences

from warmstart.checkpoint import resolve
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.surgery import as_rows, replace_vocabulary, vocabulary_tensors
from warmstart.vocabulary.transplant import row_mix

CONVEX = [*(entry.name for entry in initialisers if "convex" in entry.tags), "clp"]
_QUICK = {"dim": 8, "epochs": 1, "min_count": 1, "min_n": 0, "max_n": 0}
QUICK: dict[str, dict[str, Any]] = {
    "focus": {"training": _QUICK},
    "token-adapt": {"training": {**_QUICK, "level": "word"}},
    "wechsel": {"training": {**_QUICK, "level": "word"}},
    "ofa": {"training": {**_QUICK, "level": "word"}},
    "cw2v": {"pairs": 2000, "batch": 250, "rank": 4},
}


# --- the bounds, for any numbers ---


@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 60), st.floats(0.01, 30))
@limits(max_examples=200, deadline=None)
def test_m_mean_rows_raise_cross_entropy_by_at_most_log_one_plus_m_over_n(
    seed: int, n: int, m: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    head, bias, state = rng.standard_normal((n, 5)) * scale, rng.standard_normal(n), rng.standard_normal(5)
    mix = RowMix.from_entries((n + m, n), [], []).with_mean(np.arange(n, n + m))
    mix = mix.with_copies(np.stack([np.arange(n)] * 2, axis=1))
    wide = mix.apply(head, rng=rng) @ state + mix.apply_bias(bias)
    old = head @ state + bias
    raised = np.logaddexp.reduce(wide) - np.logaddexp.reduce(old)  # the same for every old token
    assert -1e-10 <= raised <= np.log1p(m / n) + 1e-10


def test_the_bound_is_reached_by_equal_logits() -> None:
    old = np.full(7, 1.3)
    raised = np.logaddexp.reduce(np.append(old, [old.mean()] * 3)) - np.logaddexp.reduce(old)
    assert raised == pytest.approx(np.log1p(3 / 7), abs=1e-14)


@given(st.integers(0, 10**6), st.integers(1, 30), st.floats(0.01, 100))
@limits(max_examples=200, deadline=None)
def test_a_row_in_the_convex_hull_is_never_the_unique_arg_max(seed: int, n: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    head, states = rng.standard_normal((n, 4)) * scale, rng.standard_normal((50, 4))
    bias = rng.standard_normal(n)
    count = 20
    entries = np.repeat(np.arange(count), 3), rng.integers(0, n, 3 * count), rng.exponential(size=3 * count)
    mix = RowMix.from_entries((count, n), *entries)
    old = head @ states.T + bias[:, None]
    new = mix.apply(head, rng=rng) @ states.T + mix.apply_bias(bias)[:, None]
    assert (new.max(axis=0) <= old.max(axis=0) + 1e-12 * np.abs(old).max()).all()


# --- whole models ---


@cache
def extended() -> tuple[PreTrainedTokenizerFast, list[str], list[str]]:
    """A byte-level tokenizer with 40 added words, their plain forms, and text that uses both."""
    from vocab_tokenizers import STYLES

    source = STYLES["gpt2"]()
    plain = sorted({word.strip(",.!?").lower() for text in sentences() for word in text.split()})
    plain = [word for word in plain if word.isalpha()][:40]
    target = copy.deepcopy(source)
    assert target.add_tokens([cipher_word(word) for word in plain]) == 40
    table = {word: cipher_word(word) for word in plain}
    mixed = [" ".join(table.get(word.lower(), word) for word in text.split()) for text in sentences()]
    return target, plain, mixed


def source_model(folder: Path, family: str, tied: bool) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    tokenizer = save_source(folder / family, family, tied)
    model = resolve(folder / family).load_model("auto")
    if family == "gpt2":  # its random biases would drown the tokens: one continuation for all prompts
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
    return model, tokenizer


def widened(model: PreTrainedModel, mix: RowMix) -> PreTrainedModel:
    """The model with the rows of a mix, which copies all old ones."""
    wide, rng = copy.deepcopy(model), np.random.default_rng(0)
    replace_vocabulary(wide, lambda rows, which: mix.apply(rows, rng=rng, which=which), mix.apply_bias)
    return wide


def mixed_by(name: str, model: PreTrainedModel, source: PreTrainedTokenizerFast, folder: Path) -> RowMix:
    target, plain, mixed = extended()
    made: RowContext = context(
        source,
        target,
        corpus=Texts(mixed),
        source_corpus=Texts(sentences()),
        dictionary=[(word, cipher_word(word)) for word in plain],
        parallel=list(zip(sentences(), mixed)),
    )
    found = vocabulary_tensors(model)
    made.rows = as_rows(found.rows)
    made.head_rows = None if found.head is None else as_rows(found.head)
    options = dict(QUICK.get(name, {}))
    if name == "clp":
        lent = np.random.default_rng(4).standard_normal((made.shape[0], 8))
        options["helper"] = save_donor(folder / "helper", target, lent)
    entry = initialisers.get(name)
    settings: Any = SimpleNamespace(method=lambda: (entry, entry.settings.parse(options)))
    return row_mix(settings, made)


def greedy(model: PreTrainedModel, ids: torch.Tensor, steps: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """Continuations `(batch, steps)` and the logits behind them."""
    logits = []
    with torch.no_grad():
        for _ in range(steps):
            logits.append(model(ids).logits[:, -1])
            ids = torch.cat([ids, logits[-1].argmax(dim=1, keepdim=True)], dim=1)
    return ids[:, -steps:], torch.stack(logits, dim=1)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", CONVEX)
def test_convex_rows_leave_greedy_output_unchanged(name: str, tied: bool, tmp_path: Path) -> None:
    model, tokenizer = source_model(tmp_path, "gpt2", tied)
    mix = mixed_by(name, model, tokenizer, tmp_path)
    size, drawn = len(tokenizer), np.flatnonzero(mix.fallback)
    assert len(drawn) < 10, "words that the data do not show are drawn, which the theorem does not cover"
    wide = widened(model, mix.with_mean(drawn))
    assert wide.config.vocab_size == size + 40
    texts = sentences(5, 60)
    prompts = torch.tensor([tokenizer(text)["input_ids"][:8] for text in texts])
    target = extended()[0]
    assert [target(text)["input_ids"] for text in texts] == [tokenizer(text)["input_ids"] for text in texts]
    before, logits = greedy(model, prompts)
    after, wider = greedy(wide, prompts)
    assert torch.equal(before, after)
    np.testing.assert_allclose(wider[..., :size].numpy(), logits.numpy(), atol=1e-12)
    assert (wider[..., size:].amax(-1) <= logits.amax(-1) + 1e-12).all()
    assert len(before.unique()) > 5


def test_rows_that_are_no_mixtures_change_it(tmp_path: Path) -> None:
    """The test above can fail: rows on the scale of the old ones, but drawn, win somewhere."""
    model, tokenizer = source_model(tmp_path, "gpt2", False)
    wide = widened(model, mixed_by("normal", model, tokenizer, tmp_path))
    prompts = torch.tensor([tokenizer(text)["input_ids"][:8] for text in sentences(5, 60)])
    assert not torch.equal(greedy(model, prompts)[0], greedy(wide, prompts)[0])


@pytest.mark.parametrize(
    ("family", "tied"), [("gpt2", True), ("llama", False), ("bert", True), ("t5-v1.1", False)]
)
@pytest.mark.parametrize("m", [1, 300])
def test_mean_rows_raise_the_loss_of_old_text_within_the_bound(
    family: str, tied: bool, m: int, tmp_path: Path
) -> None:
    model, tokenizer = source_model(tmp_path, family, tied)
    n = model.config.vocab_size
    mix = RowMix.from_entries((n + m, n), [], []).with_mean(np.arange(n, n + m))
    mix = mix.with_copies(np.stack([np.arange(n)] * 2, axis=1))
    task, texts = FAMILIES[family][1], list(sentences(5, 12))
    raised = loss(widened(model, mix), tokenizer, texts, task) - loss(model, tokenizer, texts, task)
    assert 0 < raised <= np.log1p(m / n) + 1e-12
