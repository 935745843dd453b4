"""Whole-word masks: never part of a word, the right share, every tokenizer, no special tokens."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_language_models import TEXT, TOKENIZERS, byte_tokenizer

from warmstart.evaluation.words import word_spans
from warmstart.foundation.errors import UserError
from warmstart.objectives import objectives
from warmstart.objectives._words import word_table
from warmstart.objectives.masked import Masked, MaskedSettings

KINDS = list(TOKENIZERS)
tokenizer_of = functools.cache(lambda kind: TOKENIZERS[kind]())


def objective(kind: str, **options: Any) -> Masked:
    entry = objectives.get("masked")
    made = entry.target(entry.settings.parse(options), tokenizer_of(kind))
    assert isinstance(made, Masked)
    return made


def blocks(kind: str, rows: int, length: int, seed: int = 0) -> np.ndarray:
    """Shuffled words, packed as the corpus room packs them: documents closed by the end-of-text token."""
    tokenizer, rng = tokenizer_of(kind), np.random.default_rng(seed)
    words = " ".join(TEXT).split()
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    ids: list[int] = []
    while len(ids) < rows * length:
        ids += tokenizer(" ".join(rng.choice(words, 30)), add_special_tokens=False)["input_ids"] + [end]
    return np.array(ids[: rows * length]).reshape(rows, length)


def words_by_hand(kind: str, ids: list[int]) -> list[list[int]]:
    """Positions of the tokens of each word, from the vocabulary strings, one token at a time."""
    tokenizer = tokenizer_of(kind)
    special = set(tokenizer.all_special_ids)
    groups: list[list[int]] = []
    before = ""
    for i, token in enumerate(ids):
        piece = tokenizer.convert_ids_to_tokens(token)
        if token in special:
            before = "special"
            continue
        if kind == "wordpiece":
            new = not piece.startswith("##")
        else:
            new = piece[0] in "Ġ▁"
        if new or before == "special" or not groups:
            groups.append([])
        groups[-1].append(i)
        before = piece
    return groups


@pytest.mark.parametrize("kind", KINDS)
def test_whole_words_only(kind: str) -> None:
    """On text without punctuation the words are the stretches between blanks; each is chosen whole or not."""
    tokenizer = tokenizer_of(kind)
    rng = np.random.default_rng(1)
    plain = [
        "the",
        "little",
        "river",
        "ran",
        "past",
        "old",
        "mill",
        "nobody",
        "asked",
        "sentence",
        "follows",
        "longer",
        "second",
    ]
    ids = tokenizer(" " + " ".join(rng.choice(plain, 200)), add_special_tokens=False)["input_ids"][:240]
    batch = np.array(ids).reshape(2, 120)
    chosen = objective(kind).choose(batch, rng)
    for row, hits in zip(batch, chosen, strict=True):
        groups = words_by_hand(kind, row.tolist())
        assert max(map(len, groups)) > 1
        assert all(hits[group].all() or not hits[group].any() for group in groups)
        assert hits.any()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_word_starts_agree_with_the_text(kind: str, data: Any) -> None:
    """What the ids tell about words agrees with the words of the text (`evaluation.words`)."""
    tokenizer, table = tokenizer_of(kind), word_table(tokenizer_of(kind))
    text = " ".join(data.draw(st.lists(st.sampled_from(" ".join(TEXT).split()), min_size=2, max_size=15)))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids = np.array([encoded["input_ids"]])
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        return
    starts = table.starts(ids)[0]
    words = word_spans(text)
    joined = "_" in text  # BERT cuts at underscores, the text's words do not
    for i, (begin, end) in enumerate(encoded["offset_mapping"]):
        bare = begin + len(text[begin:end]) - len(text[begin:end].lstrip())
        if i and encoded["offset_mapping"][i - 1][0] == begin and text[begin] not in " ":
            assert kind == "unigram" or not starts[i], "the second byte of a character"
        elif any(a == bare for a, _ in words) and bare < end:
            blank = i > 0 and tokenizer.convert_ids_to_tokens(int(ids[0, i - 1])) in ("Ġ", "▁")
            assert starts[i - 1 if blank else i], text[begin:end]
            assert not (blank and starts[i]) or not text[bare].isascii(), "a word is parted from its blank"
        elif any(a < begin < b for a, b in words) and not joined:
            assert not starts[i], text[begin:end]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("share", [0.15, 0.4])
def test_share_of_predicted_tokens(kind: str, whole: bool, share: float) -> None:
    made = objective(kind, whole_word_masking=whole, mlm_probability=share)
    data = blocks(kind, 200, 128)
    batch = made.collate(data, np.random.default_rng(0))
    labels = batch["labels"].numpy()
    special = np.isin(data, tokenizer_of(kind).all_special_ids)
    special[:, [0, -1]] |= np.isin(batch["input_ids"].numpy(), tokenizer_of(kind).all_special_ids)[:, [0, -1]]
    assert (labels != -100).sum() / (~special).sum() == pytest.approx(share, rel=0.03)


@pytest.mark.parametrize("kind", KINDS)
def test_eighty_ten_ten(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    data = blocks(kind, 300, 128)
    batch = objective(kind).collate(data, np.random.default_rng(0))
    inputs, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
    chosen = labels != -100
    assert (labels[chosen] == data[chosen]).all()
    unchanged = ~chosen
    unchanged[:, [0, -1]] = False
    assert (inputs[unchanged] == data[unchanged]).all()
    masked = inputs[chosen] == tokenizer.mask_token_id
    kept = inputs[chosen] == labels[chosen]
    assert masked.mean() == pytest.approx(0.8, abs=0.02)
    assert kept.mean() == pytest.approx(0.1, abs=0.02)
    others = inputs[chosen][~masked & ~kept]
    assert len(np.unique(others)) > 0.7 * len(objective(kind).table.regular)
    assert not np.isin(others, tokenizer.all_special_ids).any()
    assert not np.isin(labels[chosen], tokenizer.all_special_ids).any()


@pytest.mark.parametrize(("kind", "ends"), [("wordpiece", (2, 3)), ("byte", (1, 2)), ("unigram", (None, 1))])
def test_boundaries(kind: str, ends: tuple[int | None, int]) -> None:
    data = blocks(kind, 4, 32)
    for added in (True, False):
        batch = objective(kind, add_boundaries=added).collate(data, np.random.default_rng(0))
        text = batch["input_ids"].where(batch["labels"] == -100, batch["labels"]).numpy()
        expected = data.copy()
        if added:
            expected[:, -1] = ends[1]
            if ends[0] is not None:
                expected[:, 0] = ends[0]
        assert (text == expected).all()


def test_every_word_is_as_likely() -> None:
    """Long words are not shunned: the share of multi-token words among the chosen is that in the text."""
    made = objective("byte", add_boundaries=False)
    data = blocks("byte", 1, 128)
    starts = made.table.starts(data)[0]
    word = np.cumsum(starts) - 1
    rng = np.random.default_rng(0)
    counts = sum(made.choose(data, rng)[0].astype(int) for _ in range(4000))
    special = made.table.special[data[0]]
    by_word = np.array([counts[word == w][0] for w in range(word.max() + 1) if not special[word == w].any()])
    sizes = np.array([(word == w).sum() for w in range(word.max() + 1) if not special[word == w].any()])
    assert counts[~special].sum() / 4000 == pytest.approx(0.15 * (~special).sum(), rel=0.01)
    short, long = by_word[sizes == 1].mean(), by_word[sizes >= np.median(sizes[sizes > 1])].mean()
    assert long == pytest.approx(short, rel=0.12)


def test_one_giant_word_is_masked_token_by_token() -> None:
    tokenizer = tokenizer_of("wordpiece")
    piece = next(i for t, i in tokenizer.get_vocab().items() if t.startswith("##"))
    data = np.full((3, 64), piece)
    chosen = objective("wordpiece").choose(data, np.random.default_rng(0))
    assert (chosen.sum(1) == round(0.15 * 64)).all()


def test_special_tokens_only() -> None:
    data = np.full((2, 16), tokenizer_of("wordpiece").sep_token_id)
    batch = objective("wordpiece").collate(data, np.random.default_rng(0))
    assert (batch["labels"] == -100).all()


def test_rows_do_not_depend_on_their_company() -> None:
    """The same draws for a row whether the other rows hold long or short words."""
    made = objective("byte")
    one, other = blocks("byte", 2, 64, seed=1), blocks("byte", 2, 64, seed=2)
    other[0] = one[0]
    first, second = (made.collate(d, np.random.default_rng(3))["labels"][0] for d in (one, other))
    assert first.equal(second)


def test_needs_a_mask_token() -> None:
    made = Masked(MaskedSettings(), byte_tokenizer())
    with pytest.raises(UserError, match="mask token"):
        made.collate(np.zeros((1, 8), dtype=int), np.random.default_rng(0))
