"""A student's blocks in its teacher's tokens: the identity of equal tokenizers, and counterparts by hand."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import numpy as np
import pytest
from vocab_tokenizers import STYLES, sentences

from warmstart.vocabulary.recut import Recut
from warmstart.vocabulary.tokens import canonical_tokens

Kind = Literal["offsets", "warp"]
PAIRS = list(itertools.product(("bpe", "llama", "unigram", "gpt2", "wordpiece"), repeat=2))


def packed(tokenizer: Any, texts: tuple[str, ...], length: int = 60) -> np.ndarray:
    """Texts one after the other, each behind an end of text, cut into blocks anywhere."""
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    ids = [i for text in texts for i in (end, *tokenizer(text, add_special_tokens=False)["input_ids"])]
    return np.array(ids[: len(ids) // length * length]).reshape(-1, length)


@pytest.mark.parametrize("kind", ["offsets", "warp"])
@pytest.mark.parametrize("style", ["bpe", "gpt2", "qwen"])
def test_equal_tokenizers_are_the_identity(style: str, kind: Kind) -> None:
    """Blocks that begin at a text are read as they are, each token its own counterpart."""
    tokenizer = STYLES[style]()
    recut = Recut(tokenizer, tokenizer, kind)
    assert (recut.shared[:, 0] == recut.shared[:, 1]).all()
    end = tokenizer.eos_token_id
    for text in (*sentences()[:20], "naïve 東京 – a a a a a b", "the the the the"):
        ids = np.array([end, *tokenizer(text)["input_ids"], end])
        theirs, place = recut(ids)
        assert theirs.tolist() == ids.tolist()
        assert place.tolist() == list(range(len(ids)))


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_counterparts_are_the_same_stretch_of_text(student: str, teacher: str) -> None:
    """Against the texts in front of both, written out from bytes."""
    ours, theirs = STYLES[student](), STYLES[teacher](1)
    recut = Recut(ours, theirs)
    written, read = canonical_tokens(ours), canonical_tokens(theirs)
    found = asked = 0
    for block in packed(ours, sentences()[:30]):
        ids, place = recut(block)
        assert len(place) == len(block)
        for i in np.flatnonzero(place >= 0):
            token, other = written[block[i]], read[ids[place[i]]]
            if token.role is None:
                assert token.key == other.key
                before = b"".join(t.text_bytes for t in (written[j] for j in block[:i]) if t.role is None)
                there = b"".join(t.text_bytes for t in (read[j] for j in ids[: place[i]]) if t.role is None)
                assert before.replace(b" ", b"").lower() == there.replace(b" ", b"").lower()
            found += 1
        asked += len(block)
        known = place[place >= 0]
        assert (np.diff(known) > 0).all()
    assert found > 0.15 * asked


def test_what_warping_pairs_is_the_same_stretch_of_text() -> None:
    """Nearly always, and fewer of them; every pair is spelled alike."""
    ours, theirs = STYLES["bpe"](), STYLES["unigram"](1)
    exact, warped = Recut(ours, theirs), Recut(ours, theirs, "warp")
    alike = dict(exact.shared.tolist())
    same = total = known = 0
    for block in packed(ours, sentences()[:30]):
        (ids, place), (again, other) = exact(block), warped(block)
        assert ids.tolist() == again.tolist()
        paired = other >= 0
        assert all(alike[block[i]] == ids[other[i]] for i in np.flatnonzero(paired))
        same, total = same + int((place == other)[paired].sum()), total + int(paired.sum())
        known += int((place >= 0).sum())
    assert 0.95 * total < same <= total < known


def test_parts_of_characters_and_of_words_have_no_counterpart() -> None:
    """A block may begin and end anywhere; what it holds besides is read as ever."""
    ours, theirs = STYLES["bpe"](), STYLES["llama"](1)
    ids = np.array(ours("東京 the river, 東京")["input_ids"])
    whole, _ = Recut(ours, theirs)(ids)
    cut, place = Recut(ours, theirs)(ids[1:-1])
    assert len(place) == len(ids) - 2 and place[0] == place[-1] == -1
    assert set(whole[10:-10]) <= set(cut)
    nothing, none = Recut(ours, theirs)(ids[:0])
    assert len(nothing) == len(none) == 0


def test_special_tokens_are_read_as_those_of_the_same_role() -> None:
    ours, theirs = STYLES["llama"](), STYLES["gpt2"](1)  # <s> and </s>; one token for both
    begin, end = ours.bos_token_id, ours.eos_token_id
    recut = Recut(ours, theirs)
    text = ours("The river", add_special_tokens=False)["input_ids"]
    ids, place = recut(np.array([begin, *text, end]))
    assert ids[0] == ids[-1] == theirs.eos_token_id
    assert place[-1] == len(ids) - 1 and place[0] == -1, "its mass is that of the end alone"
    counts = np.bincount(recut.shared[:, 1])
    assert counts.max() == 1 and np.bincount(recut.shared[:, 0]).max() == 1
    assert [end, theirs.eos_token_id] in recut.shared.tolist()
    assert theirs.decode(ids[1:-1]) == "The river"


def test_length_and_identity() -> None:
    ours, theirs = STYLES["bpe"](), STYLES["llama"](1)
    recut = Recut(ours, theirs)
    blocks = packed(ours, sentences()[:20])
    padded = np.where(np.arange(60) < 50, blocks, -1)
    found = recut.measure(padded)
    assert found == recut.ratio == sum(len(recut(b[:50])[0]) for b in blocks) / (50 * len(blocks))
    others = [Recut(ours, theirs, "warp"), Recut(theirs, ours), Recut(ours, STYLES["llama"](2))]
    assert len({recut.fingerprint, *(r.fingerprint for r in others)}) == 4
    assert Recut(ours, theirs).fingerprint == recut.fingerprint
