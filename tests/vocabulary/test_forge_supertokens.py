"""Supertokens: cuts that lose nothing, tokens over word boundaries, lines cut apart, exact round trips."""

from __future__ import annotations

import json
import random
from collections import Counter
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from vocab_tokenizers import STYLES, gpt2_like, sentences

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.forge import TokenizerForge, forge
from warmstart.vocabulary.forge.report import measure
from warmstart.vocabulary.forge.supertokens import chunks, cut
from warmstart.vocabulary.settings import TokenizerSettings


def settings_of(**options: object) -> TokenizerSettings:
    return TokenizerSettings.parse({"corpus": "unused", "supertokens": True, "vocab_size": 900, **options})


@cache
def documents() -> tuple[str, ...]:
    """Documents of several lines, in which phrases recur; the last five are for measuring."""
    rng = random.Random(0)
    words = " ".join(sentences(0, 40)).split()
    phrases = [" ".join(words[i : i + 3]) for i in range(0, 90, 3)]
    lines = [" ".join(rng.choices(phrases, k=4)) for _ in range(400)]
    return tuple("\n".join(lines[i : i + 8]) for i in range(0, 400, 8))


@cache
def supertokens(seed: int = 0) -> PreTrainedTokenizerFast:
    return TokenizerForge(settings_of(seed=seed)).train(documents()[:-5])


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


@given(text=st.text(st.sampled_from("ab\n\r é漢"), max_size=200), seed=st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_chunks_are_the_text_and_end_behind_line_breaks(text: str, seed: int) -> None:
    made = cut(text, np.array([1.0, 2.0, 1.0]) / 4, np.random.default_rng(seed))
    assert "".join(made) == text
    for chunk in made:
        assert 0 < len(chunk) <= 9 and "\n" not in chunk[:-1]
    inner = [chunk for chunk in made[:-1] if not chunk.endswith("\n")]
    following = "".join(made).split("\n")
    assert all(len(chunk) >= 4 for chunk in inner) or len(following) > 1


def test_lengths_follow_their_weights() -> None:
    weights = settings_of().chunk_weights
    lengths = Counter(map(len, chunks(["x" * 1_000_000], settings_of())))
    shares = {size: lengths[size] / lengths.total() for size in lengths}
    for number, weight in enumerate(weights):
        for size in (4 + 2 * number, 5 + 2 * number):
            assert shares[size] == pytest.approx(weight / sum(weights) / 2, abs=0.004)
    assert sum(shares[size] for size in range(4, 24)) > 0.9999
    assert max(shares, key=shares.__getitem__) in (12, 13)


def test_a_training_is_repeatable_and_its_seed_matters() -> None:
    again = TokenizerForge(settings_of()).train(iter(documents()[:-5]))
    assert again.backend_tokenizer.to_str() == supertokens().backend_tokenizer.to_str()
    assert supertokens(1).get_vocab() != supertokens().get_vocab()


def test_tokens_reach_over_words_and_never_over_lines() -> None:
    tokens = [supertokens().convert_tokens_to_string([token]) for token in supertokens().get_vocab()]
    assert sum(" " in token.strip() for token in tokens) > 50
    assert not [token for token in tokens if "\n" in token[:-1]]
    assert max(len(token) for token in supertokens().get_vocab()) <= 30
    short = TokenizerForge(settings_of(max_token_length=6)).train(documents()[:-5])
    special = set(short.all_special_tokens)
    assert max(len(token) for token in short.get_vocab() if token not in special) == 6


def test_they_cover_more_bytes_than_tokens_of_one_word() -> None:
    words = TokenizerForge(TokenizerSettings(corpus="unused", vocab_size=900)).train(documents()[:-5])
    held_out = documents()[-5:]
    assert measure(supertokens(), held_out).bytes_per_token > 1.1 * measure(words, held_out).bytes_per_token


@given(text=st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("the on\n\n\r\t  "))))
@settings(max_examples=150, deadline=None)
def test_everything_is_read_and_written(text: str) -> None:
    tokenizer = supertokens()
    if not any(token in text for token in tokenizer.all_special_tokens):
        decoded = tokenizer.decode(ids(tokenizer, text), clean_up_tokenization_spaces=False)
        assert decoded == text
        lines = [line + "\n" for line in text.split("\n")]
        lines[-1] = lines[-1][:-1]
        assert ids(tokenizer, text) == [i for line in lines for i in ids(tokenizer, line)]


def test_the_report_finds_every_token_reachable() -> None:
    report = measure(supertokens(), documents())
    assert report.round_trip_failures == 0
    assert report.unreachable <= 0.01 * report.vocab_size


def test_in_the_manner_of_another_one(tmp_path: Path) -> None:
    made = TokenizerForge(settings_of(like="x"), gpt2_like()).train(documents()[:-5])
    assert made.special_tokens_map == gpt2_like().special_tokens_map
    assert any("Ġ" in token[1:] for token in made.get_vocab())
    for style in ("llama", "unigram", "wordpiece"):
        with pytest.raises(UserError, match="supertokens need a byte-level bpe tokenizer"):
            TokenizerForge(settings_of(like="x"), STYLES[style]())
    (tmp_path / "text.txt").write_text("\n\n".join(documents()), encoding="utf-8")
    report = forge(settings_of(corpus=str(tmp_path / "text.txt")), tmp_path / "made")
    assert report.round_trip_failures == 0
    opened = AutoTokenizer.from_pretrained(tmp_path / "made")
    text = documents()[3]
    assert opened.decode(opened(text)["input_ids"]) == text
    assert len(opened.tokenize(text)) < 0.6 * len(text.split()) + len(text) / 8
    record = json.loads((tmp_path / "made" / "warmstart.json").read_text())
    assert record["lineage"]["settings"]["supertokens"] is True


def test_text_that_does_not_fit_into_memory_is_refused_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2_000_000))
    with pytest.raises(UserError, match=r"need over 0.0 GiB.*set corpus.max_bytes"):
        list(chunks(["x" * 10_000] * 3, settings_of()))
    assert list(chunks(["x" * 10_000], settings_of()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "unigram"}, "made by kind: bpe"),
        ({"chunk_weights": [0.0, 0.0]}, "not all of them 0"),
        ({"chunk_weights": [1.0, -0.5]}, "from 0 on"),
        ({"chunk_weights": []}, "not all of them 0"),
        ({"max_token_length": 1}, "max_token_length"),
    ],
)
def test_bad_settings_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings_of(**options)
