"""TokenizerForge: equal text gives an equal tokenizer, in the manner of another one, for AutoTokenizer."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from vocab_tokenizers import STYLES, forged, plain, sentences

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.forge import TokenizerForge, forge, save_tokenizer
from warmstart.vocabulary.forge.lattice import Lattice, Substrings
from warmstart.vocabulary.forge.report import measure
from warmstart.vocabulary.forge.unigram import train_unigram
from warmstart.vocabulary.settings import TokenizerSettings
from warmstart.vocabulary.tokens import backend_state

styles = pytest.mark.parametrize("style", sorted(STYLES))
kinds = pytest.mark.parametrize("kind", ["bpe", "unigram", "wordpiece"])


def like(style: str, **options: object) -> PreTrainedTokenizerFast:
    settings = TokenizerSettings.parse({"corpus": "unused", "like": style, "vocab_size": 420, **options})
    return TokenizerForge(settings, STYLES[style]()).train(sentences(7))


@kinds
def test_size_special_tokens_and_round_trip(kind: str) -> None:
    size = {"bpe": 420, "unigram": 250, "wordpiece": 250}[kind]
    tokenizer = forged(kind, size)
    assert len(tokenizer) == size
    for role in ("pad", "unk", "mask", "cls", "sep"):
        assert getattr(tokenizer, f"{role}_token_id") is not None
    for text in sentences(9, 30):
        decoded = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
        assert decoded.replace(" ", "") == text.replace(" ", "")
        assert tokenizer.tokenize(text) == tokenizer.tokenize(text)


@given(text=st.text(st.characters(codec="utf-8")))
@settings(max_examples=100, deadline=None)
def test_byte_level_reads_and_writes_everything(text: str) -> None:
    tokenizer = plain("bpe", 420)
    special = tokenizer.all_special_tokens
    if not any(token in text for token in special):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


_HASH = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from vocab_tokenizers import forged
for kind in ("bpe", "unigram", "wordpiece"):
    print(hashlib.sha256(forged(kind, 380).backend_tokenizer.to_str().encode()).hexdigest())
"""


def test_the_same_text_gives_the_same_tokenizer_in_every_process() -> None:
    command = [sys.executable, "-c", _HASH, str(Path(__file__).parent)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (run.communicate()[0].split() for run in runs)
    assert len(set(first)) == 3 and first == second


@kinds
def test_a_one_shot_iterator_gives_the_same_as_a_list(kind: str) -> None:
    settings = TokenizerSettings(corpus="unused", kind=kind, vocab_size=380)
    stream = TokenizerForge(settings).train(iter(sentences()))
    assert stream.backend_tokenizer.to_str() == forged(kind, 380).backend_tokenizer.to_str()


@styles
def test_like_keeps_everything_but_the_vocabulary(style: str) -> None:
    source, made = STYLES[style](), like(style)
    old, new = backend_state(source), backend_state(made)
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        assert old[part] == new[part]
    assert old["model"]["type"] == new["model"]["type"]
    assert set(made.get_vocab()) != set(source.get_vocab())
    for role in ("bos", "eos", "pad", "unk", "mask", "cls", "sep"):
        assert getattr(source, f"{role}_token") == getattr(made, f"{role}_token")
    assert sorted(source.all_special_tokens) == sorted(made.all_special_tokens)
    assert sorted(made.get_vocab().values()) == list(range(len(made)))
    text = sentences(8, 1)[0]
    before, after = (t.convert_ids_to_tokens(t(text)["input_ids"]) for t in (source, made))
    around = [token for token in before if token in source.all_special_tokens]
    assert [token for token in after if token in made.all_special_tokens] == around
    pair_before, pair_after = (
        [i for i in t(text, text)["input_ids"] if i in t.all_special_ids] for t in (source, made)
    )
    assert source.convert_ids_to_tokens(pair_before) == made.convert_ids_to_tokens(pair_after)
    assert made.model_input_names == source.model_input_names


@styles
def test_saved_folder_opens_in_auto_tokenizer(style: str, tmp_path: Path) -> None:
    made = like(style, model_max_length=77)
    save_tokenizer(made, tmp_path)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    assert opened.model_max_length == 77
    assert opened.special_tokens_map == made.special_tokens_map
    assert opened.all_special_ids == made.all_special_ids
    for text in sentences(8, 20):
        assert opened(text)["input_ids"] == made(text)["input_ids"]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_llama_like_training_does_not_merge_across_spaces() -> None:
    made = like("llama", vocab_size=700)
    assert sum(token.startswith("<0x") for token in made.get_vocab()) == 256
    assert not [token for token in made.get_vocab() if "▁" in token[1:] and set(token) != {"▁"}]
    text = "漢字 naïve"
    assert made.decode(made.encode(text, add_special_tokens=False)) == text


def test_lowercase_and_extra_special_tokens() -> None:
    made = like("unigram", lowercase=True, additional_special_tokens=["<|user|>"], vocab_size=250)
    assert made.tokenize("THE <|user|>") == [*made.tokenize("the"), "▁", "<|user|>"]
    assert made.convert_tokens_to_ids("<|user|>") in made.all_special_ids
    cased = forged("wordpiece", 250, lowercase=True)
    assert cased.tokenize("OnAn") == cased.tokenize("onan")


def test_unigram_cuts_as_well_as_the_librarys_trainer() -> None:
    texts = [text.lower() for text in sentences(0, 400)]
    ours = forged("unigram", 200, lowercase=True)
    theirs = Tokenizer(models.Unigram())
    theirs.pre_tokenizer = pre_tokenizers.Metaspace()
    special = trainers.UnigramTrainer(
        vocab_size=200 - 4, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    theirs.train_from_iterator(texts, special)
    held_out = [text.lower() for text in sentences(0, 500)[400:]]
    a = sum(len(ours.tokenize(text)) for text in held_out)
    b = sum(len(theirs.encode(text).ids) for text in held_out)
    assert a <= 1.02 * b


WORDS = Counter({"abab": 5, "aba": 3, "b": 7, "abba": 1, "bb": 4})


def _cuts(word: str) -> list[list[str]]:
    """All segmentations of a word, by brute force."""
    found = []
    for bars in itertools.product([0, 1], repeat=len(word) - 1):
        parts, part = [], word[0]
        for character, bar in zip(word[1:], bars):
            if bar:
                parts.append(part)
                part = ""
            part += character
        found.append([*parts, part])
    return found


def _lattice() -> tuple[Lattice, list[str], np.ndarray, np.ndarray]:
    words, counts = list(WORDS), np.array(list(WORDS.values()), dtype=float)
    trie = Substrings(words, counts, 3)
    ids = np.arange(len(trie.frequency))
    pieces = trie.strings(ids)
    score = -np.random.default_rng(0).random(len(pieces)) * 3
    return (
        Lattice.build(trie.edges(words, ids.astype(np.int32)), [len(w) for w in words]),
        pieces,
        counts,
        score,
    )


def test_substrings_equal_a_double_loop() -> None:
    trie = Substrings(list(WORDS), np.array(list(WORDS.values()), dtype=float), 3)
    expected: Counter[str] = Counter()
    for word, count in WORDS.items():
        for start, end in itertools.combinations(range(len(word) + 1), 2):
            if end - start <= 3:
                expected[word[start:end]] += count
    wanted = {piece: count for piece, count in expected.items() if count > 1 or len(piece) == 1}
    found = trie.strings(np.arange(len(trie.frequency)))
    assert dict(zip(found, trie.frequency.tolist())) == wanted and len(found) == len(set(found))


def test_expected_counts_equal_enumeration() -> None:
    lattice, pieces, counts, score = _lattice()
    by_piece = dict(zip(pieces, score.tolist()))
    expected: Counter[str] = Counter()
    best = []
    for word, count in WORDS.items():
        cuts = [cut for cut in _cuts(word) if all(part in by_piece for part in cut)]
        weights = [math.exp(sum(by_piece[part] for part in cut)) for cut in cuts]
        best.append(math.log(max(weights)))
        for cut, weight in zip(cuts, weights):
            for part in cut:
                expected[part] += count * weight / sum(weights)
    assert np.allclose(lattice.expected(score, counts), [expected[piece] for piece in pieces], atol=1e-10)
    assert np.allclose(lattice.best(score), best, atol=1e-12)
    dead = np.array([len(piece) < 3 for piece in pieces])
    again = lattice.only(dead).expected(np.where(dead, score, -np.inf), counts)
    assert (again[~dead] == 0).all() and again[dead].sum() > 0


def test_unigram_pieces_are_probabilities_over_required_characters() -> None:
    pieces = train_unigram(WORDS, 4)
    assert {"a", "b"} <= {piece for piece, _ in pieces} and len(pieces) <= 4
    assert all(score < 0 for _, score in pieces)
    assert [score for _, score in pieces] == sorted((score for _, score in pieces), reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocab_size": 200}, "no room"),
        ({"vocab_size": 10}, "vocab_size"),
        ({"kind": "sentencepiece"}, "kind"),
        ({"like": "x", "template": "bos"}, "taken from it"),
        ({"special_tokens": {"begin": "<s>"}}, "unknown role 'begin'"),
        ({"vocab_sise": 300}, "did you mean 'vocab_size'"),
    ],
)
def test_bad_settings_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings = TokenizerSettings.parse({"corpus": "unused", **options})
        TokenizerForge(settings).train(sentences())


@kinds
def test_empty_text_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match="no text"):
        TokenizerForge(TokenizerSettings(corpus="unused", kind=kind)).train(["", "  \n"])


def test_another_kind_than_the_one_to_follow_is_refused() -> None:
    with pytest.raises(UserError, match="`like` is a bpe tokenizer"):
        TokenizerForge(TokenizerSettings(corpus="unused", like="x", kind="unigram"), STYLES["bpe"]())


def test_report_counts_by_hand() -> None:
    tokenizer = plain("bpe", 420)
    text = "the other é the"
    report = measure(tokenizer, [text])
    tokens = len(tokenizer.tokenize(text))
    assert (report.bytes, report.tokens, report.texts) == (len(text.encode()), tokens, 1)
    assert report.fertility == tokens / 4 and report.bytes_per_token == report.bytes / tokens
    assert (report.round_trip_failures, report.unreachable, report.unknown_rate) == (0, 0, 0.0)
    assert report.vocab_size == 420 and report.special_tokens == 5


def test_report_finds_unreachable_tokens_and_lost_text() -> None:
    state = backend_state(plain("bpe", 420))
    state["model"]["vocab"]["xqz"] = max(state["model"]["vocab"].values()) + 5  # a token without merges
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))
    assert "xqz" in measure(tokenizer, ["abc"]).unreachable_examples
    lossy = measure(plain("unigram", 250), ["漢字 the", "the"])
    assert lossy.round_trip_failures == 1 and lossy.unknown_rate > 0


@kinds
def test_forge_writes_a_folder_with_its_record(kind: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(sentences()), encoding="utf-8")
    settings = TokenizerSettings.parse(
        {"corpus": str(tmp_path / "text.txt"), "kind": kind, "vocab_size": 380}
    )
    report = forge(settings, tmp_path / "made")
    opened = AutoTokenizer.from_pretrained(tmp_path / "made")
    assert len(opened) == report.vocab_size <= 380
    record = json.loads((tmp_path / "made" / "warmstart.json").read_text())
    assert record["lineage"]["operation"] == "tokenizer"
    assert record["lineage"]["measured"]["fertility"] == report.fertility
    assert len(record["lineage"]["data"]) == 1
    follow = TokenizerSettings.parse(
        {"corpus": str(tmp_path / "text.txt"), "like": str(tmp_path / "made"), "vocab_size": 330}
    )
    assert forge(follow, tmp_path / "second").special_tokens == report.special_tokens
    with pytest.raises(UserError, match="already exists"):
        forge(follow, tmp_path / "second")
