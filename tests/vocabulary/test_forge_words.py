"""Frequent words as tokens: those that brute force finds, each encoded as one, other text as before."""

from __future__ import annotations

import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from vocab_foreign import foreign
from vocab_tokenizers import STYLES, llama_like, plain, sentences

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.forge.extend import Extension, extend, extend_by_words
from warmstart.vocabulary.forge.whole_words import is_word
from warmstart.vocabulary.settings_forge import ExtendSettings
from warmstart.vocabulary.tokens import canonical_tokens

TEXTS = [f"x={word}(42) {word} {word}, _y1 --- don't" for word in ["abcdefgh", "ijkl", "mnöp"]] + [
    *foreign()[:60],
    *sentences(0)[:40],
]


def by_words(style: str, words: int, texts: list[str] = TEXTS, **options: object) -> Extension:
    settings = ExtendSettings.parse({"source": "x", "corpus": "unused", "words": words, **options})
    return extend_by_words(STYLES[style](), texts, settings)


def ids(tokenizer: object, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)  # type: ignore[attr-defined, no-any-return]


def naive(style: str, texts: list[str]) -> list[tuple[int, str, str]]:
    """(uses, piece, text) of all words of several pieces, most frequent first; unknown pieces are text."""
    old = STYLES[style]()
    backend = old.backend_tokenizer
    counts: Counter[str] = Counter()
    for text in texts:
        seen = backend.normalizer.normalize_str(text) if backend.normalizer else text
        counts.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(seen))
    table = {token.string: token for token in canonical_tokens(old)}
    found = []
    for word, uses in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        pieces = [token.value for token in backend.model.tokenize(word)]
        parts = [table[piece].text_bytes if piece in table else piece.encode() for piece in pieces]
        text = b"".join(parts).decode("utf-8", "replace")
        plain_letters = all(unicodedata.category(c)[0] in "LMN" or c == "_" for c in text)
        if plain_letters and any(c.isalpha() for c in text) and len(pieces) > 1 and word not in table:
            found.append((uses, word, text))
    return found


@pytest.mark.parametrize("style", ["bpe", "gpt2", "qwen", "unigram", "wordpiece"])
def test_the_most_frequent_words_of_several_pieces(style: str) -> None:
    """In a vocabulary's own writing, ties by code point; numbers, signs and known words are none."""
    expected = naive(style, TEXTS)
    made = by_words(style, 20)
    chosen = [piece for piece in made.added if piece not in made.helpers]
    assert sorted(chosen) == sorted(word for _, word, _ in expected[:20])
    assert expected[0][0] > expected[19][0] >= expected[20][0]
    after = made.tokenizer.get_vocab()
    for piece in chosen:
        found = made.tokenizer.backend_tokenizer.model.tokenize(piece)
        assert [token.id for token in found] == [after[piece]]


@pytest.mark.parametrize("style", ["bpe", "gpt2"])
def test_whole_words_are_all_that_is_added_and_all_that_changes(style: str) -> None:
    old, made = STYLES[style](), by_words(style, 12, merges="whole")
    assert made.helpers == [] and len(made.added) == 12 == made.asked
    words = set(made.added)
    changed = 0
    for text in [*TEXTS, *foreign()[60:90]]:
        cut = old.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
        assert (ids(old, text) != ids(made.tokenizer, text)) == any(word in words for word, _ in cut)
        changed += any(word in words for word, _ in cut)
    assert 12 <= changed < len(TEXTS)


def test_rare_words_are_left_out() -> None:
    every = naive("bpe", TEXTS)
    frequent = [word for uses, word, _ in every if uses >= 3]
    made = by_words("bpe", 1000, merges="whole", min_uses=3)
    assert made.added == frequent and 5 < len(frequent) < len(every)


def test_words() -> None:
    yes = ["snake_case", " x2", "नमस्ते", "Ёж", "__init__", "e\u0301"]
    no = ["42", "_", "", " ", "don't", "a b", "a-b", "\n    ", "'s"]
    assert [is_word(text) for text in (*yes, *no)] == [True] * len(yes) + [False] * len(no)


def test_a_file_is_read_and_the_change_is_reported(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    plain("bpe", 300).save_pretrained(tmp_path / "old")
    (tmp_path / "text.txt").write_text("\n".join(TEXTS))
    given = {"source": str(tmp_path / "old"), "corpus": {"path": str(tmp_path / "text.txt"), "unit": "line"}}
    extend(ExtendSettings.parse({**given, "words": 7, "merges": "whole"}), tmp_path / "new")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "new")) == len(plain("bpe", 300)) + 7


def test_what_cannot_be_counted_is_said() -> None:
    with pytest.raises(UserError, match="does not cut text into words"):
        extend_by_words(llama_like(), TEXTS, ExtendSettings.parse({"source": "x", "corpus": "y", "words": 3}))
    with pytest.raises(UserError, match="no word that the tokenizer cuts"):
        by_words("bpe", 3, ["42 -- 17", "!"])
    with pytest.raises(UserError, match="`words` takes tokens from a text"):
        ExtendSettings.parse({"source": "x", "words": 3})
    with pytest.raises(UserError, match="choose one"):
        ExtendSettings.parse({"source": "x", "corpus": "y", "words": 3, "count": 2})
