"""VocabMap: overlap, roles, and pieces without stray spaces; the batch path equals the slow one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocab_tokenizers import STYLES, plain, sentences

from warmstart.vocabulary.forge import TokenizerForge
from warmstart.vocabulary.forge.report import measure
from warmstart.vocabulary.map import VocabMap
from warmstart.vocabulary.pieces import Decomposer, segments
from warmstart.vocabulary.settings import TokenizerSettings
from warmstart.vocabulary.tokens import CanonicalToken, canonical_tokens

PAIRS = list(itertools.product(sorted(STYLES), repeat=2))
pairs = pytest.mark.parametrize(("source", "target"), PAIRS, ids=[f"{a}-{b}" for a, b in PAIRS])


def built(source: str, target: str, **options: object) -> VocabMap:
    return VocabMap.build(STYLES[source](), STYLES[target](seed=1), **options)


@pairs
def test_overlap_equals_a_double_loop(source: str, target: str) -> None:
    vocab = built(source, target)
    found = dict(vocab.overlap.tolist())
    for token in vocab.target:
        same = [s for s in vocab.source if token.role is None and s.role is None and s.key == token.key]
        assert (token.id in found) == bool(same)
        if same:
            best = vocab.source[found[token.id]]
            assert best.key == token.key
            rank = [(s.byte != token.byte, s.continuation != token.continuation, s.id) for s in same]
            assert min(rank)[2] == best.id
    special = {t.id for t in vocab.target if t.role is not None}
    everything = np.concatenate([vocab.new, vocab.overlap[:, 0], sorted(special)])
    assert sorted(everything.tolist()) == list(range(vocab.target_size))


@pairs
def test_batch_of_pieces_equals_one_by_one(source: str, target: str) -> None:
    vocab = built(source, target)
    single = [vocab.decomposer.one(token) for token in vocab.target]
    assert vocab.pieces_all() == single


@pairs
def test_pieces_spell_the_token_without_a_stray_space(source: str, target: str) -> None:
    vocab = built(source, target)
    checked = 0
    for token in vocab.target:
        pieces = [vocab.source[i] for i in vocab.pieces(token.id)]
        if token.role is not None or not token.is_text or token.text.isspace():
            assert all(piece.role is None for piece in pieces)
            continue
        if not pieces:
            continue
        spelled = b"".join(b" " * piece.starts_word + piece.text_bytes for piece in pieces).decode()
        if source == "wordpiece":
            assert spelled.replace(" ", "") == token.text.replace(" ", "")
            if not token.starts_word and token.text.isalnum():
                assert all(piece.continuation for piece in pieces)
        else:
            assert spelled == token.surface
        checked += 1
    assert checked > 150


@pytest.mark.parametrize("style", sorted(STYLES))
def test_a_tokenizer_maps_onto_itself(style: str) -> None:
    tokenizer = STYLES[style]()
    vocab = VocabMap.build(tokenizer, tokenizer)
    assert (vocab.overlap[:, 0] == vocab.overlap[:, 1]).all()
    assert (vocab.roles[:, 0] == vocab.roles[:, 1]).all()
    assert len(vocab.new) == 0 and len(vocab.unmatched_special) == 0
    assert len(vocab.overlap) + len(vocab.roles) == len(tokenizer)


@pytest.mark.parametrize("style", ["bpe", "llama"])
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="▁⁂"), min_size=1), word=st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_text_is_spelled_by_byte_capable_sources(style: str, text: str, word: bool) -> None:
    tokens = canonical_tokens(STYLES[style]())
    decomposer = Decomposer(STYLES[style](), tokens)
    token = CanonicalToken(0, text.encode(), word, False)
    pieces = [tokens[i] for i in decomposer.one(token)]
    spelled = b"".join(b" " * piece.starts_word + piece.text_bytes for piece in pieces)
    assert spelled == token.surface.encode()
    assert decomposer.batch([token]) == [decomposer.one(token)]


@pytest.mark.parametrize("style", ["bpe", "llama"])
@given(data=st.binary(min_size=1, max_size=12), word=st.booleans())
@settings(max_examples=80, deadline=None)
def test_broken_utf8_is_cut_at_byte_level(style: str, data: bytes, word: bool) -> None:
    if b"\xe2\x96\x81" in data:
        return  # SentencePiece writes the space as this character
    tokens = canonical_tokens(STYLES[style]())
    pieces = [
        tokens[i] for i in Decomposer(STYLES[style](), tokens).one(CanonicalToken(0, data, word, False))
    ]
    spelled = b"".join(b" " * piece.starts_word + piece.text_bytes for piece in pieces)
    assert spelled.removeprefix(b" " if word else b"") == data


@given(st.binary(max_size=30))
def test_segments_lose_nothing(data: bytes) -> None:
    parts = segments(data)
    assert b"".join(bytes([p]) if isinstance(p, int) else p.encode() for p in parts) == data


def test_wordpiece_continuations_are_cut_greedily() -> None:
    vocab = built("wordpiece", "wordpiece")
    known = {t.text: t.id for t in vocab.source if t.continuation}
    for token in vocab.target:
        if not token.continuation:
            continue
        expected, rest = [], token.text
        while rest:
            longest = max((n for n in range(1, len(rest) + 1) if rest[:n] in known), default=0)
            if not longest:
                expected = []
                break
            expected.append(known[rest[:longest]])
            rest = rest[longest:]
        assert vocab.pieces(token.id) == expected


def test_contractions_are_cut_as_behind_a_letter() -> None:
    tokenizer = TokenizerForge(TokenizerSettings(corpus="unused", vocab_size=300)).train(["don't can't"] * 50)
    tokens = canonical_tokens(tokenizer)
    contraction = next(token for token in tokens if token.text == "'t")
    assert Decomposer(tokenizer, tokens).one(contraction) == [contraction.id]
    assert Decomposer(tokenizer, tokens).batch(tokens)[contraction.id] == [contraction.id]
    assert measure(tokenizer, ["don't"]).unreachable == 0


def test_unknown_script_has_no_pieces_in_wordpiece_and_bytes_elsewhere() -> None:
    token = CanonicalToken(0, "漢字".encode(), True, False)
    tokens = {style: canonical_tokens(STYLES[style]()) for style in ("wordpiece", "unigram", "llama", "bpe")}
    found = {s: len(Decomposer(STYLES[s](), t).one(token)) for s, t in tokens.items()}
    assert found["wordpiece"] == 0
    assert found["llama"] >= 6 and found["bpe"] >= 6


def test_special_tokens_are_matched_by_role() -> None:
    source, target = STYLES["wordpiece"](), STYLES["unigram"]()
    roles = dict(VocabMap.build(source, target).roles.tolist())
    assert roles[target.bos_token_id] == source.cls_token_id
    assert roles[target.eos_token_id] == source.sep_token_id
    for role in ("pad", "unk", "mask"):
        name = f"{role}_token_id"
        assert roles[getattr(target, name)] == getattr(source, name)


def test_an_end_token_lends_no_row_to_pad_unk_or_mask() -> None:
    source, target = STYLES["gpt2"](), STYLES["bpe"]()
    vocab = VocabMap.build(source, target)
    roles = dict(vocab.roles.tolist())
    assert roles == {target.bos_token_id: source.eos_token_id, target.eos_token_id: source.eos_token_id}
    missing = {target.pad_token_id, target.unk_token_id, target.mask_token_id}
    assert set(vocab.unmatched_special.tolist()) == missing
    padded = VocabMap.build(source, target, target_size=len(target) + 5)
    assert set(padded.unmatched_special.tolist()) == missing | set(range(len(target), len(target) + 5))
    assert padded.pieces_all()[-5:] == [[]] * 5


def test_fuzzy_overlap_ignores_case_and_space() -> None:
    plain_map, fuzzy = (built("bpe", "bpe", fuzzy=flag) for flag in (False, True))
    assert len(plain_map.fuzzy) == 0 and len(fuzzy.fuzzy) > 5
    assert (plain_map.overlap == fuzzy.overlap).all()
    for target, source in fuzzy.fuzzy.tolist():
        a, b = fuzzy.target[target], fuzzy.source[source]
        assert a.key != b.key and a.text.strip().casefold() == b.text.strip().casefold()
    assert not set(fuzzy.fuzzy[:, 0]) & set(fuzzy.overlap[:, 0])
    assert set(fuzzy.new) == set(plain_map.new) - set(fuzzy.fuzzy[:, 0])


def test_truncation_set_on_the_tokenizer_neither_cuts_pieces_nor_is_lost() -> None:
    tokenizer = plain("bpe", 300)
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(2)
    try:
        pieces = Decomposer(tokenizer, canonical_tokens(tokenizer)).text(" " + sentences()[0])
        assert len(pieces) > 2
        assert backend.truncation["max_length"] == 2
    finally:
        backend.no_truncation()
