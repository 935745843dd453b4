"""The worlds with known truth: nothing is lost in them, and what is known is so by construction."""

from __future__ import annotations

import itertools
import json
import string
from collections import Counter
from pathlib import Path

import pytest

from warmstart.corpus import open_corpus, open_pairs
from warmstart.corpus.named.brackets import is_nested
from warmstart.corpus.named.cipher import (
    LETTERS,
    decipher_word,
    encipher_letters,
    encipher_word,
    encipher_words,
    is_shown,
    meanings,
    word_types,
)
from warmstart.foundation.errors import UserError

TEXT = 'The cat, aged 7, didn\'t "meow" at THE naïve café_owner (e-mail: a.b@c.de) 你好!'


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_word_cipher_permutes_all_words_of_a_length(length: int) -> None:
    words = ["".join(letters) for letters in itertools.product(string.ascii_lowercase, repeat=length)]
    turned = [encipher_word(word) for word in words]
    assert len(set(turned)) == len(words), "two words share a pseudo-word"
    assert all(len(word) == length and set(word) <= set(LETTERS.values()) for word in turned)
    assert [decipher_word(word) for word in turned] == words


def test_words_with_a_common_stem_are_unrelated_and_every_letter_matters() -> None:
    first = [encipher_word(f"{c}ransplantations") for c in string.ascii_lowercase]
    for a, b in itertools.combinations(first, 2):
        assert sum(x == y for x, y in zip(a, b)) < 7, "one letter must change the whole word"
    suffixed = [encipher_word(word) for word in ("walk", "walks", "walked", "walking")]
    assert len({word[:3] for word in suffixed}) == 4


def test_case_digits_and_punctuation_stay() -> None:
    turned = encipher_words(TEXT)
    assert len(turned) == len(TEXT)
    for old, new in zip(TEXT, turned, strict=True):
        assert new == LETTERS.get(old, old) or (old in LETTERS and new in LETTERS.values())
        assert old.isupper() == new.isupper()
    assert not set(turned) & set(string.ascii_letters)
    assert turned.lower().split()[0] == encipher_word("the") and "7" in turned and "你好!" in turned
    assert encipher_word("NaïVE") != encipher_word("naïve") == encipher_word("NaïVE").lower()
    assert decipher_word(encipher_word("NaïVE")) == "NaïVE"


def test_the_letter_cipher_moves_letters_only() -> None:
    turned = encipher_letters(TEXT)
    back = str.maketrans({v: k for k, v in LETTERS.items()})
    assert turned != TEXT and turned.translate(back) == TEXT


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    path = tmp_path / "plain.txt"
    path.write_text("".join(f"Sentence {i} has the word number {i * i}.\n" for i in range(200)))
    return path


@pytest.mark.parametrize(("kind", "turn"), [("words", encipher_words), ("letters", encipher_letters)])
def test_the_corpus_is_the_plain_one_document_by_document(plain: Path, kind: str, turn: object) -> None:
    options = {"options": {"of": str(plain)}, "valid_fraction": 0.2, "test_fraction": 0.2}
    corpus = open_corpus({"path": f"cipher/{kind}", **options})
    original = open_corpus({"path": str(plain), "valid_fraction": 0.2, "test_fraction": 0.2})
    for split in ("train", "valid", "test"):
        expected = [turn(text) for text in original.texts(split)]  # type: ignore[operator,arg-type]
        assert list(corpus.texts(split)) == expected and expected  # type: ignore[arg-type]
    assert corpus.fingerprint not in (original.fingerprint, open_corpus(plain).fingerprint)
    other = "letters" if kind == "words" else "words"
    assert corpus.fingerprint != open_corpus({"path": f"cipher/{other}", **options}).fingerprint


def test_a_changed_plain_text_is_another_corpus(plain: Path) -> None:
    settings = {"path": "cipher/words", "options": {"of": str(plain)}}
    before = open_corpus(settings).fingerprint
    plain.write_text(plain.read_text() + "One more.\n")
    assert open_corpus(settings).fingerprint != before


@pytest.mark.parametrize("options", [{"off": "x"}, {"of": 3}])
def test_wrong_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"of"):
        open_corpus({"path": "cipher/words", "options": options})


def test_the_dictionary_shows_one_half_and_keeps_the_other(
    plain: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("warmstart.corpus.named.cipher._BASES", (str(plain),))
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    name = f"cipher/dictionary/{plain}"
    shown, kept, every = (set(open_pairs(name, split)) for split in ("train", "test", "all"))
    assert shown | kept == every and not shown & kept and shown and kept
    assert {word for word, _ in every} == {"sentence", "has", "the", "word", "number"}
    assert all(turned == encipher_word(word) for word, turned in every)
    assert all(is_shown(word) for word, _ in shown)
    assert word_types(str(plain))["Sentence"] == 200 and word_types(str(plain), min_count=201) == Counter()
    truth = meanings(str(plain))
    assert truth(encipher_word("Sentence")) == "Sentence" and truth(encipher_word("number")) == "number"
    assert truth(encipher_word("numbers")) is None and truth("number") is None
    assert meanings(str(plain), min_count=201)(encipher_word("number")) is None
    lines = list(open_pairs(f"cipher/parallel/{plain}"))
    assert lines and all(turned == encipher_words(text) for text, turned in lines)
    with pytest.raises(UserError, match="no split 'valid'"):
        open_pairs(name, "valid")


def test_brackets_are_nested_and_zipfian(tmp_path: Path) -> None:
    corpus = open_corpus({"path": "brackets", "options": {"documents": 400, "types": 50}})
    sentences = [line.split() for text in corpus.texts("all") for line in text.splitlines()]
    assert len(sentences) == 3200 and all(is_nested(tokens) for tokens in sentences)
    assert not is_nested(["(b", "(c", "b)", "c)"]) and not is_nested(["(b"]) and not is_nested(["b)"])
    lengths = sorted(len(tokens) for tokens in sentences)
    assert 18 <= lengths[1600] <= 22 and lengths[-1] > 50 and lengths[160] < 12
    counts = Counter(token for tokens in sentences for token in tokens if token.startswith("("))
    (_, first), (_, second) = counts.most_common(2)
    assert 1.8 < first / second < 2.2, "rank 2 is half as frequent as rank 1"
    assert len(counts) == 50 and counts["(b"] == first
    depth = max(
        max(itertools.accumulate(1 if t.startswith("(") else -1 for t in tokens)) for tokens in sentences
    )
    assert depth >= 8


def test_brackets_follow_their_options() -> None:
    def texts(**options: object) -> list[str]:
        return list(open_corpus({"path": "brackets", "options": {"documents": 30, **options}}).texts("all"))

    assert texts() == texts() != texts(seed=1)
    assert set(texts()) > set(texts(documents=10)), "a shorter corpus is the beginning of a longer one"
    assert all(
        len(line.split()) == 6 for text in texts(median_length=6, spread=0) for line in text.split("\n")
    )
    marks = {open_corpus({"path": "brackets", "options": {"seed": seed}}).fingerprint for seed in (0, 1)}
    assert len(marks) == 2
    with pytest.raises(UserError, match="did you mean 'types'"):
        texts(tpyes=3)
    json.dumps(open_corpus("brackets").settings.model_dump(mode="json"))
