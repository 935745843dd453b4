"""Extending tokenizers: old ids stay, each new token is produced, old text is cut as before."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast
from vocab_families import FAMILIES, save_source
from vocab_foreign import foreign, mixed
from vocab_tokenizers import STYLES, gpt2_like, llama_like, plain, sentences, t5_like

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.forge.auxiliary import Auxiliary, in_order
from warmstart.vocabulary.forge.extend import Extension, extend, extend_by_text, extend_by_tokens
from warmstart.vocabulary.forge.insert import best_cut, insert_bpe, insert_unigram
from warmstart.vocabulary.forge.merges import Merges, first_merge
from warmstart.vocabulary.forge.state import changeable
from warmstart.vocabulary.opening import check_opening
from warmstart.vocabulary.settings_forge import ExtendSettings
from warmstart.vocabulary.tokens import backend_state

styles = pytest.mark.parametrize("style", sorted(STYLES))
BPE, UNIGRAM = ("bpe", "gpt2", "llama", "qwen"), ("t5", "unigram")


def by_text(tokenizer: PreTrainedTokenizerFast, texts: tuple[str, ...], **options: object) -> Extension:
    chosen = {"source": "x", "corpus": "unused", "count": 30, "auxiliary_size": 900, **options}
    return extend_by_text(tokenizer, texts, ExtendSettings.parse(chosen))


def by_tokens(tokenizer: PreTrainedTokenizerFast, *tokens: str, **options: object) -> Extension:
    chosen = ExtendSettings.parse({"source": "x", "tokens": list(tokens), **options})
    return extend_by_tokens(tokenizer, tokens, chosen)


@cache
def extended(style: str) -> Extension:
    return by_text(STYLES[style](), foreign())


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


@styles
def test_old_ids_stay_and_new_ones_follow(style: str) -> None:
    old, made = STYLES[style](), extended(style)
    before, after = old.get_vocab(), made.tokenizer.get_vocab()
    assert {piece: after[piece] for piece in before} == before
    start = max(before.values()) + 1
    assert [after[piece] for piece in made.added] == list(range(start, start + 30))
    assert len(after) == len(before) + 30
    assert made.tokenizer.special_tokens_map == old.special_tokens_map
    assert sorted(made.tokenizer.all_special_ids) == sorted(old.all_special_ids)
    assert backend_state(made.tokenizer)["added_tokens"] == backend_state(old)["added_tokens"]
    for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        assert backend_state(made.tokenizer)[part] == backend_state(old)[part]


@styles
def test_every_new_token_is_used_and_is_its_own_encoding(style: str) -> None:
    made = extended(style)
    counts = Counter(i for text in foreign() for i in ids(made.tokenizer, text))
    after = made.tokenizer.get_vocab()
    model = made.tokenizer.backend_tokenizer.model
    for piece in made.added:
        assert counts[after[piece]] > 0, piece
        if not piece.startswith("##"):  # the model itself cuts continuations only inside words
            assert [token.id for token in model.tokenize(piece)] == [after[piece]]
    before = sum(len(STYLES[style]().tokenize(text)) for text in foreign())
    assert style == "wordpiece" or counts.total() < 0.6 * before


@styles
def test_the_folder_opens_in_auto_tokenizer(style: str, tmp_path: Path) -> None:
    made = extended(style).tokenizer
    made.save_pretrained(tmp_path)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*foreign()[:20], *sentences(0)[:20]):
        assert opened(text)["input_ids"] == made(text)["input_ids"]


def test_tokens_used_too_rarely_make_room_for_others() -> None:
    for style in ("bpe", "unigram", "wordpiece"):
        made = by_text(STYLES[style](), foreign(), min_uses=8)
        after = made.tokenizer.get_vocab()
        counts = Counter(i for text in foreign() for i in ids(made.tokenizer, text))
        assert len(made.added) == 30 and (made.unused > 0 or style == "unigram")
        assert min(counts[after[piece]] for piece in made.added) >= 8


@pytest.mark.parametrize("style", BPE)
def test_merges_behind_all_others_touch_only_text_with_both_parts_side_by_side(style: str) -> None:
    """Exact: where no new pair is adjacent in the old cut, the cut is the old one; elsewhere it is not."""
    old, made = STYLES[style](), by_text(STYLES[style](), mixed())
    count = len(backend_state(old)["model"]["merges"])
    pairs = {tuple(merge) for merge in backend_state(made.tokenizer)["model"]["merges"][count:]}
    assert len(pairs) >= 25
    touched = 0
    words = {word for text in sentences(0) for word in text.split()}
    for word in sorted(words):
        before = old.tokenize(" " + word)
        changed = made.tokenizer.tokenize(" " + word) != before
        assert changed == any(pair in pairs for pair in itertools.pairwise(before)), word
        touched += changed
    assert 0 < touched < 0.5 * len(words)


def test_merges_in_front_are_those_of_the_auxiliary_tokenizer_and_change_more_old_text() -> None:
    old = gpt2_like()
    last, first = (by_text(old, mixed(), merges=place) for place in ("last", "first"))
    assert len(last.added) == len(first.added) == 30

    def changed(made: Extension) -> int:
        return sum(ids(old, text) != ids(made.tokenizer, text) for text in sentences(0))

    assert changed(last) < 0.5 * changed(first)
    state = backend_state(first.tokenizer)
    merges = [tuple(merge) for merge in state["model"]["merges"]]
    assert len(set(merges)) == len(merges)
    assert set(merges) >= {tuple(merge) for merge in backend_state(old)["model"]["merges"]}
    counts = Counter(i for text in mixed() for i in ids(first.tokenizer, text))
    assert min(counts[first.tokenizer.get_vocab()[piece]] for piece in first.added) > 0


def test_merges_in_front_follow_the_auxiliary_order_exactly() -> None:
    state = tiny_bpe("abc", [("a", "b")])
    auxiliary = Auxiliary(["bc", "abc", "ab"], [("b", "c"), ("a", "bc"), ("a", "b")], {})
    made = insert_bpe(state, auxiliary.pieces, place="first", auxiliary=auxiliary)
    assert made.state["model"]["merges"] == [("b", "c"), ("a", "bc"), ("a", "b")]
    assert made.added == ["bc", "abc"]
    made = insert_bpe(state, auxiliary.pieces, limit=1, place="first", auxiliary=auxiliary)
    assert made.state["model"]["merges"] == [("b", "c"), ("a", "b")] and made.added == ["bc"]
    barred = insert_bpe(state, auxiliary.pieces, banned={"bc"}, place="first", auxiliary=auxiliary)
    assert barred.added == []


def tiny_bpe(letters: str, merges: list[tuple[str, str]]) -> dict[str, object]:
    vocab = {piece: index for index, piece in enumerate([*letters, *(a + b for a, b in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    return changeable(PreTrainedTokenizerFast(tokenizer_object=tokenizer))[1]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_cutting_equals_the_library(data: st.DataObject) -> None:
    """Random merges over three letters, so that pairs overlap and repeat as badly as they can."""
    merges: list[tuple[str, str]] = []
    symbols = list("abc")
    for _ in range(data.draw(st.integers(1, 8))):
        pair = data.draw(st.sampled_from(symbols)), data.draw(st.sampled_from(symbols))
        if pair not in merges and pair[0] + pair[1] not in symbols:
            merges.append(pair)
            symbols.append(pair[0] + pair[1])
    vocab = {symbol: index for index, symbol in enumerate(symbols)}
    model = models.BPE(vocab=vocab, merges=merges)
    word = data.draw(st.text("abc", min_size=1, max_size=20))
    assert Merges(merges).cut(word) == [token.value for token in model.tokenize(word)]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_given_piece_becomes_reachable_and_every_helper_too(data: st.DataObject) -> None:
    state = tiny_bpe("abc", [("a", "b"), ("c", "a"), ("ab", "c")])
    pieces = data.draw(st.lists(st.text("abcd", min_size=1, max_size=9), min_size=1, max_size=5))
    made = insert_bpe(state, pieces)
    model = models.BPE(vocab=made.state["model"]["vocab"], merges=made.state["model"]["merges"])
    for piece in (*pieces, *made.added):
        assert [token.value for token in model.tokenize(piece)] == [piece]
    assert set(made.helpers) == set(made.added) - set(pieces)
    limited = insert_bpe(state, pieces, limit=3, banned={"bb"})
    assert len(limited.added) <= 3 and "bb" not in limited.added


def _trees(parts: tuple[str, ...]) -> list[frozenset[str]]:
    """Strings on the way of every binary tree over the parts, without the whole one; by brute force."""
    if len(parts) == 1:
        return [frozenset()]
    found = []
    for middle in range(1, len(parts)):
        halves = parts[:middle], parts[middle:]
        inner = frozenset("".join(half) for half in halves if len(half) > 1)
        found += [inner | a | b for a, b in itertools.product(_trees(halves[0]), _trees(halves[1]))]
    return found


def test_the_way_to_a_piece_is_the_cheapest_of_all() -> None:
    rng = random.Random(3)
    for size in range(2, 8):
        parts = tuple("abcdefg"[:size])
        for _ in range(20):
            price = {
                "".join(parts[i:j]): rng.choice([1.0, 1.5, 2.0, math.inf])
                for i in range(size)
                for j in range(i + 2, size + 1)
            }
            cheapest = min(sum(price[s] for s in tree) for tree in _trees(parts))
            left, paid = list(parts), 0.0
            while len(left) > 1 and (merge := first_merge(left, price.__getitem__)):
                place = next(i for i, pair in enumerate(itertools.pairwise(left)) if pair == merge)
                left[place : place + 2] = ["".join(merge)]
                paid += price[left[place]] if len(left) > 1 else 0.0
            assert (len(left) == 1) == (cheapest < math.inf)
            assert len(left) > 1 or paid == cheapest
    assert first_merge(["a", "b", "c"], lambda _: 1.0) == ("a", "b")


WORDS = st.text("theronä", min_size=1, max_size=8)


@given(words=st.lists(WORDS, min_size=1, max_size=6), style=st.sampled_from(sorted(STYLES)))
@settings(max_examples=60, deadline=None)
def test_given_words_are_produced_and_old_ids_stay(words: list[str], style: str) -> None:
    old = STYLES[style]()
    try:
        made = by_tokens(old, *words, existing="skip", form="both")
    except UserError as error:
        assert "no new token" in str(error)
        return
    before, after = old.get_vocab(), made.tokenizer.get_vocab()
    assert {piece: after[piece] for piece in before} == before
    assert sorted(after.values()) == list(range(len(after)))
    for word in words:
        assert len(ids(made.tokenizer, f". {word} .")) == len(ids(made.tokenizer, ". .")) + 1, word
    text = " ".join(words)
    if style in BPE:
        decoded = made.tokenizer.decode(ids(made.tokenizer, text), clean_up_tokenization_spaces=False)
        assert decoded == text


def test_best_cut_equals_enumeration_and_the_library() -> None:
    rng = random.Random(1)
    pieces = {"a": -1.0, "b": -2.5, "ab": -3.1, "ba": -2.0, "aba": -4.0, "bb": -3.0}
    table = [("<unk>", 0.0), *pieces.items()]
    model = models.Unigram(table, 0)
    for _ in range(100):
        word = "".join(rng.choice("abx") for _ in range(rng.randint(1, 9)))
        ways = []
        for bars in itertools.product([0, 1], repeat=len(word) - 1):
            ends = [0, *(i + 1 for i, bar in enumerate(bars) if bar), len(word)]
            parts = [word[i:j] for i, j in itertools.pairwise(ends)]
            ways.append(sum(pieces.get(p, -14.0 if p == "x" else -math.inf) for p in parts))
        assert best_cut(word, pieces, -14.0) == pytest.approx(max(ways), abs=1e-12)
        if "x" not in word:
            found = sum(pieces[token.value] for token in model.tokenize(word))
            assert found == pytest.approx(max(ways), abs=1e-12)


@given(words=st.lists(st.text("theron", min_size=2, max_size=9), min_size=1, max_size=6, unique=True))
@settings(max_examples=40, deadline=None)
def test_unigram_pieces_are_just_better_than_their_own_cut(words: list[str]) -> None:
    """The formula of `pieces`, with the other new pieces among those into which a piece could be cut."""
    state = changeable(plain("unigram", 250))[1]
    old = dict(state["model"]["vocab"])
    made = insert_unigram(state, words, margin=0.1)
    new = dict(made.state["model"]["vocab"])
    special = {token["content"] for token in state["added_tokens"]}
    usable = {piece: score for piece, score in new.items() if piece not in special}
    least = min(old.values())
    for piece in made.added:
        others = {p: s for p, s in usable.items() if p != piece}
        expected = max(best_cut(piece, others, least - 10) + 0.1, least)
        assert new[piece] == pytest.approx(expected, abs=1e-9)
    assert min(new.values()) == least


def test_zero_scores_cut_more_old_text_in_another_way() -> None:
    old = plain("unigram", 250)
    changed = {}
    for scores in ("pieces", "auxiliary", "zero"):
        made = by_text(old, mixed(), scores=scores)
        changed[scores] = sum(ids(old, text) != ids(made.tokenizer, text) for text in sentences(0))
    assert (
        changed["pieces"] <= changed["auxiliary"] <= changed["zero"] and changed["pieces"] < changed["zero"]
    )


def test_auxiliary_scores_are_moved_to_the_old_scale() -> None:
    """The auxiliary scores of two old pieces are 2 and 5 lower; their mean is weighted by exp(score)."""
    state = changeable(plain("unigram", 250))[1]
    old = dict(state["model"]["vocab"])
    scores = {"xqz": -4.0, "n": old["n"] - 2.0, "r": old["r"] - 5.0}
    weights = np.exp([scores["n"], scores["r"]])
    made = insert_unigram(state, ["xqz"], scores="auxiliary", auxiliary=Auxiliary(["xqz"], [], scores))
    shift = float(weights @ [2.0, 5.0] / weights.sum())
    assert dict(made.state["model"]["vocab"])["xqz"] == pytest.approx(-4.0 + shift, abs=1e-9)
    low = insert_unigram(
        state, ["xqz"], scores="auxiliary", auxiliary=Auxiliary([], [], scores | {"xqz": -99.0})
    )
    plainly = insert_unigram(state, ["xqz"])
    assert low.state["model"]["vocab"][-1] == plainly.state["model"]["vocab"][-1]


def test_whole_words_need_no_helpers_and_stand_for_nothing_else() -> None:
    old = gpt2_like()
    made = by_tokens(old, "übermut", "zzz", merges="whole")
    assert made.added == ["ĠÃ¼bermut", "Ġzzz"] and made.helpers == []
    assert made.tokenizer.tokenize("a übermut zzz") == ["a", "ĠÃ¼bermut", "Ġzzz"]
    assert made.tokenizer.tokenize(" zzzt") == old.tokenize(" zzzt")
    for text in sentences(0):
        assert ids(old, text) == ids(made.tokenizer, text)
    with pytest.raises(UserError, match="does not cut text into words"):
        by_tokens(llama_like(), "zzz", merges="whole")


def test_forms_of_given_tokens() -> None:
    assert by_tokens(gpt2_like(), "xqz", merges="whole").added == ["Ġxqz"]
    assert by_tokens(gpt2_like(), "xqz", merges="whole", form="literal").added == ["xqz"]
    assert by_tokens(plain("wordpiece", 300), "xqz", form="both").added == ["xqz", "##xqz"]
    assert by_tokens(plain("wordpiece", 300), " xqz", "xqz", form="literal").added == ["xqz", "##xqz"]
    assert by_tokens(t5_like(), "xqz", form="both").added == ["▁xqz", "xqz"]
    phrase = by_tokens(llama_like(), "the xqz")
    assert "▁the▁xqz" in phrase.added
    assert phrase.tokenizer.tokenize("on the xqz.")[-2:] == ["▁the▁xqz", "."]
    lower = PreTrainedTokenizerFast(tokenizer_object=lowercase_wordpiece(), unk_token="[UNK]")
    assert by_tokens(lower, "ABC").added == ["abc"]


def lowercase_wordpiece() -> Tokenizer:
    state = backend_state(plain("wordpiece", 300))
    state["normalizer"]["lowercase"] = True
    return Tokenizer.from_str(json.dumps(state))


def test_candidates_are_ordered() -> None:
    words = Counter({"ba": 3, "bc": 1})
    assert in_order(["a", "b", "c", "ba"], words, "bpe") == ["ba", "b", "a", "c"]
    assert in_order(["ba", "a"], words, "unigram") == ["ba", "a"]
    many = Counter({"a": 9000, "b": 1000, "c": 1})
    assert in_order(["a", "##a", "b", "c", "ab"], many, "wordpiece") == ["a", "##a", "b", "ab", "c"]


@pytest.mark.parametrize(
    ("style", "tokens", "options", "message"),
    [
        ("bpe", ["the"], {"form": "literal"}, "exist already: 'the'"),
        ("gpt2", ["New York"], {}, "within 'New York'"),
        ("wordpiece", ["foo-bar", "a b"], {}, "within 'foo-bar', 'a b'"),
        ("unigram", [" "], {}, "leaves nothing of ' '"),
        ("bpe", [""], {}, "leaves nothing of ''"),
    ],
)
def test_unusable_tokens_are_named(
    style: str, tokens: list[str], options: dict[str, object], message: str
) -> None:
    tokenizer = STYLES[style]()
    if "exist" in message:
        tokenizer = by_tokens(tokenizer, *tokens, existing="skip", **options).tokenizer
    with pytest.raises(UserError, match=message):
        by_tokens(tokenizer, *tokens, **options)


def test_existing_tokens_are_skipped_where_asked() -> None:
    first = by_tokens(gpt2_like(), "xqz")
    again = by_tokens(first.tokenizer, "xqz", "qqq", existing="skip")
    assert again.existing == ["Ġxqz"] and again.asked == 2 and "Ġqqq" in again.added
    with pytest.raises(UserError, match="no new token to add"):
        by_tokens(first.tokenizer, "xqz", existing="skip")


def test_merges_in_front_that_hide_a_token_are_refused() -> None:
    """`abc` is a + bc; with the merge of `ab` before that of `bc`, there never is a bc to merge with."""
    vocab = {piece: index for index, piece in enumerate(["a", "b", "c", "bc"])}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocab, [("b", "c")])))
    with pytest.raises(UserError, match=r"1 new tokens would never be produced: 'abc'.*set merges: last"):
        by_tokens(tokenizer, "abc", "ab", form="literal", merges="first")
    made = by_tokens(tokenizer, "abc", "ab", form="literal").tokenizer
    assert made.tokenize("abc") == ["abc"] and made.tokenize("ab") == ["ab"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither `count`"),
        ({"count": 5}, "give `corpus`"),
        ({"count": 5, "tokens": ["a"], "corpus": "x"}, "choose one"),
        ({"tokens": ["a"], "scores": "auxiliary"}, "needs `corpus` and `count`"),
        ({"tokens": ["a"], "margin": 0}, "margin"),
        ({"count": 5, "corpus": "x", "merge": "last"}, "did you mean 'merges'"),
    ],
)
def test_bad_settings_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ExtendSettings.parse({"source": "x", **options})


def test_other_kinds_of_tokenizer_are_refused() -> None:
    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    )
    with pytest.raises(UserError, match="a WordLevel tokenizer cannot be changed"):
        by_tokens(words, "b")
    suffixed = Tokenizer(models.BPE({"a</w>": 0, "a": 1}, [], end_of_word_suffix="</w>"))
    with pytest.raises(UserError, match="end_of_word_suffix"):
        by_tokens(PreTrainedTokenizerFast(tokenizer_object=suffixed), "b")


def test_a_text_that_supports_fewer_gives_fewer_and_none_is_an_error() -> None:
    few = by_text(gpt2_like(), ("xqzxqz xqzxqz xqz xq xqz",), count=500)
    assert 0 < len(few.added) < 20 and few.asked == 500
    with pytest.raises(UserError, match="supports no new token"):
        by_text(gpt2_like(), ("xq",))


def write(folder: Path, name: str, texts: tuple[str, ...]) -> str:
    (folder / name).write_text("\n".join(texts), encoding="utf-8")
    return str(folder / name)


def test_the_operation_writes_tokenizer_and_report(tmp_path: Path) -> None:
    gpt2_like().save_pretrained(tmp_path / "old")
    chosen = ExtendSettings.parse(
        {
            "source": str(tmp_path / "old"),
            "corpus": write(tmp_path, "new.txt", foreign()),
            "source_corpus": write(tmp_path, "old.txt", sentences(0)),
            "count": 25,
            "auxiliary_size": 900,
        }
    )
    report = extend(chosen, tmp_path / "made")
    opened = AutoTokenizer.from_pretrained(tmp_path / "made")
    assert len(opened) == report.tokens_after == report.tokens_before + 25 and report.added == 25
    assert report.unreachable_new == 0 and report.removed == 0
    assert report.new_text is not None and report.old_text is not None
    assert report.new_text.after.bytes_per_token > 1.3 * report.new_text.before.bytes_per_token
    assert report.old_text.words_changed < 0.1 and report.old_text.after.round_trip_failures == 0
    record = json.loads((tmp_path / "made" / "warmstart.json").read_text())
    assert record["lineage"]["operation"] == "extend" and record["lineage"]["measured"]["asked"] == 25
    assert record["change"] == report.model_dump(mode="json")
    with pytest.raises(UserError, match="already exists"):
        extend(chosen, tmp_path / "made")
    with pytest.raises(UserError, match=r"needs about .* GiB of memory"):
        extend(chosen.model_copy(update={"auxiliary_size": 10**12}), tmp_path / "huge")


def test_tokens_from_a_file(tmp_path: Path) -> None:
    gpt2_like().save_pretrained(tmp_path / "old")
    options = {"source": str(tmp_path / "old"), "merges": "whole"}
    (tmp_path / "words.txt").write_text("xqz\r\n\nqqq\n", encoding="utf-8")
    chosen = ExtendSettings.parse({**options, "tokens_file": str(tmp_path / "words.txt")})
    assert extend(chosen, tmp_path / "made").added == 2
    assert AutoTokenizer.from_pretrained(tmp_path / "made").tokenize("a qqq") == ["a", "Ġqqq"]
    wrong = [("none", None, "No such file"), ("empty", b"\n", "is empty"), ("latin", b"\xff", "UTF-8")]
    for name, content, message in wrong:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            extend(ExtendSettings.parse({**options, "tokens_file": str(tmp_path / name)}), tmp_path / "x")


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "qwen2", "roberta", "t5", "xlm-roberta"])
def test_the_class_of_every_family_opens_it_as_it_is(family: str) -> None:
    """transformers rebuilds some tokenizers from their vocabulary: merges, scores and ids survive that."""
    kind, _, style, sizes = FAMILIES[family]
    check_opening(AutoConfig.for_model(kind, **sizes), extended(style).tokenizer, family)


def test_new_ids_on_padded_rows_get_rows_of_their_own(tmp_path: Path) -> None:
    """A checkpoint with 16 rows more than tokens: 30 new ids meet 16 junk rows, none of which survives."""
    from safetensors.numpy import load_file

    from warmstart.vocabulary.settings import TransplantSettings
    from warmstart.vocabulary.transplant import transplant

    old = save_source(tmp_path / "source", "gpt2", tied=True, extra_rows=16)
    made = by_text(old, foreign())
    made.tokenizer.save_pretrained(tmp_path / "tokenizer")
    transplant(
        TransplantSettings(source=str(tmp_path / "source"), tokenizer=str(tmp_path / "tokenizer")),
        tmp_path / "made",
    )
    name = "transformer.wte.weight"
    before, after = (load_file(tmp_path / f / "model.safetensors")[name] for f in ("source", "made"))
    size = len(old)
    assert before.shape[0] == size + 16 and after.shape[0] == size + 30
    assert np.array_equal(after[:size], before[:size])
    for piece in made.added:
        text = made.tokenizer.convert_tokens_to_string([piece])
        if "\ufffd" not in text:
            pieces = before[ids(old, text)].mean(axis=0)
            row = after[made.tokenizer.get_vocab()[piece]]
            assert np.allclose(row, pieces, atol=1e-12), piece
