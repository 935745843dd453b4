"""The divergence of a model with new tokens from its reference: a loop over single places and texts."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "objectives"))
from objectives_taught import FOLD, OLD, PHRASES, SIZE, TEXTS, batch, distribution, merged, model, objective
from vocab_extended import extended
from vocab_tokenizers import plain, sentences

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.aligning import Aligned, Alignment, Merging, Offsets
from warmstart.vocabulary.divergence import Divergence, divergence, windows
from warmstart.vocabulary.map import VocabMap

KNOWN = list(range(1, OLD))
NEW = [*KNOWN, *PHRASES]
ROWS = np.append(FOLD, -1)[:SIZE]


pytestmark = pytest.mark.usefixtures("one_thread")


class Numbers:
    """Cuts texts that are old ids with spaces between."""

    fingerprint = "numbers"

    def texts(self, texts: Any) -> Aligned:
        return self.ids([[int(i) for i in text.split()] for text in texts])

    def ids(self, rows: Any) -> Aligned:
        source, target, ends = [], [], []
        for row in rows:
            new, stops = merged(list(row))
            target += [*new, -1]
            ends += [len(source) + stop for stop in stops] + [-1]
            source += [*row, -1]
        return Aligned(*(np.array(part, dtype=np.int64) for part in (source, target, ends)))


def measured(student: Any, teacher: Any, texts: list[list[int]] = TEXTS, **options: Any) -> Divergence:
    written = [" ".join(map(str, text)) for text in texts]
    return divergence(student, teacher, Numbers(), written, fold=ROWS, new=list(PHRASES), **options)


def naive(student: Any, teacher: Any, start: tuple[int, int] | None = None) -> dict[str, float]:
    kl: dict[bool, list[float]] = {True: [], False: []}
    masses, follow, right, reference = [], [], [], []
    for text in TEXTS:
        new, ends = merged(text)
        if start is not None:
            text, new, ends = [start[0], *text], [start[1], *new], [1, *(end + 1 for end in ends)]
        for i, end in enumerate(ends):
            p = distribution(teacher, text, end - 1, KNOWN)
            s = distribution(student, new, i, NEW)
            q = dict.fromkeys(KNOWN, 0.0)
            for token, mass in s.items():
                q[int(FOLD[token])] += mass
            kl[new[i] in PHRASES].append(sum(p[v] * math.log(p[v] / q[v]) for v in KNOWN))
            if i + 1 == len(new):
                continue
            masses.append(sum(s[n] for n in PHRASES))
            follow.append(new[i + 1] in PHRASES)
            if follow[-1]:
                right.append(max(s, key=lambda token: s[token]) == new[i + 1])
                hits = []
                for place in range(end, ends[i + 1]):
                    before = distribution(teacher, text, place - 1, KNOWN)
                    hits.append(max(before, key=lambda token: before[token]) == text[place])
                reference.append(all(hits))
    return {
        "kl_after_new": float(np.mean(kl[True])),
        "kl_elsewhere": float(np.mean(kl[False])),
        "new_accuracy": float(np.mean(right)),
        "reference_accuracy": float(np.mean(reference)),
        "new_probability": float(np.mean(masses)),
        "new_share": float(np.mean(follow)),
        "after_new": len(kl[True]),
        "elsewhere": len(kl[False]),
        "new_tokens": len(right),
    }


@pytest.mark.parametrize("start", [None, (0, 0)])
@pytest.mark.parametrize("chunked", [False, True])
def test_equals_a_loop_over_single_places(start: Any, chunked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import warmstart.evaluation.cross_entropy as module

    if chunked:
        monkeypatch.setattr(module, "chunk_size", lambda tokens, vocab: 3)
    student, teacher = model(seed=3), model(seed=4, size=OLD)
    found = measured(student, teacher, start=start, batch_tokens=4 if chunked else 4096)
    assert student.training and teacher.training
    assert found.model_dump() == pytest.approx(naive(student, teacher, start), rel=1e-10)
    assert found.kl_after_new > 1e-3 and 0 < found.new_share < 1


def sure(size: int, follower: dict[int, int]) -> Any:
    """A model without attention's help: after token a it says follower[a]."""
    made = model(size=size, hidden_size=24).eval()
    with torch.no_grad():
        for layer in made.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        made.model.norm.weight.fill_(1.0)
        made.model.embed_tokens.weight.copy_(torch.eye(24, dtype=torch.float64)[:size])
        made.lm_head.weight.zero_()
        for before, after in follower.items():
            made.lm_head.weight[after] += 5 * made.model.embed_tokens.weight[before]
    return made


def test_accuracies_count_whole_new_tokens() -> None:
    """The reference knows 3 4 8 but not 3 4 in front of 11; the model says the right new token once."""
    teacher = sure(OLD, {9: 3, 3: 4, 4: 8, 13: 3})
    student = sure(SIZE, {9: 20, 13: 20})
    found = measured(student, teacher, [[9, 3, 4, 11], [13, 3, 4, 8, 5], [9, 5, 6, 7]])
    assert (found.new_tokens, found.new_accuracy) == (3, pytest.approx(1 / 3))
    assert found.reference_accuracy == pytest.approx(2 / 3)


def test_its_sums_are_those_of_the_objective() -> None:
    student, teacher = model(seed=3), model(seed=4, size=OLD)
    made = objective("vocabulary-kl", teacher=teacher, fold=FOLD, chain_weight=0)
    total, count = made.loss(student, batch(made))
    found = measured(student, teacher)
    assert count.item() == found.after_new + found.elsewhere
    expected = found.kl_after_new * found.after_new + found.kl_elsewhere * found.elsewhere
    assert total.item() == pytest.approx(expected, rel=1e-10)


def test_is_zero_for_a_model_that_does_as_the_reference() -> None:
    """New head rows share the mass of the first piece, and no state depends on more than the last token."""
    follower = {9: 3, 11: 4, 12: 9}
    teacher, student = sure(OLD, follower), sure(SIZE, follower)
    with torch.no_grad():
        rows, old = student.model.embed_tokens.weight, teacher.lm_head.weight
        for token, pieces in PHRASES.items():
            rows[token] = rows[pieces[-1]]
        student.lm_head.weight[:OLD] = old
    raw = measured(student, teacher)
    assert raw.kl_elsewhere > 1e-3  # new tokens get mass that the first piece has as well
    with torch.no_grad():
        bias = torch.zeros(SIZE, dtype=torch.float64)
        bias[OLD:] = -500.0
        student.lm_head.bias = torch.nn.Parameter(bias)
    again = measured(student, teacher)
    assert abs(again.kl_after_new) < 1e-12 and abs(again.kl_elsewhere) < 1e-12
    assert again.new_probability < 1e-12 < again.new_share


@pytest.mark.parametrize("kind", ["merge", "offsets"])
@pytest.mark.parametrize(("length", "start"), [(9, None), (12, (1, 2)), (64, None)])
def test_windows_hold_all_of_the_text_once(kind: str, length: int, start: Any) -> None:
    source, target = extended() if kind == "merge" else (plain("bpe", 420), plain("bpe", 360, 1))
    vocab = VocabMap.build(source, target)
    way: Alignment = Merging(vocab, source, vocab.new) if kind == "merge" else Offsets(source, target)
    texts = ["", *sentences()[:30], "", " ".join(sentences()[30:40])]
    aligned = way.texts(texts)
    rows = windows(aligned, length, start)
    head = int(start is not None)
    for line, whole in ((0, aligned.source), (1, aligned.target)):
        body = rows[:, line, head:]
        assert body[body >= 0].tolist() == whole[whole >= 0].tolist()
        assert head == 0 or (rows[:, line, 0] == start[line]).all()
    for row in rows:
        ours, theirs = row[0][row[0] >= 0], row[1][row[1] >= 0]
        assert row[2][len(theirs) - 1] == len(ours) <= length
        for i in range(head, len(theirs)):
            if row[2][i]:
                assert source.decode(ours[head : row[2][i]]) == target.decode(theirs[head : i + 1])
    filled = (rows[:, :2] >= 0).sum(2).max(1)
    assert length > 60 or np.median(filled) >= length - 3


def test_stretches_longer_than_a_window_are_left_out() -> None:
    source = np.array([1, 2, 3, 4, 5, 6, 7, -1])
    text = Aligned(source, np.array([1, 9, 6, 7, -1]), np.array([1, 5, 6, 7, -1]))
    rows = windows(text, 3)
    assert rows[:, 0].tolist() == [[1, -1, -1], [6, 7, -1]]
    assert rows[:, 1].tolist() == [[1, -1, -1], [6, 7, -1]]
    assert rows[:, 2].tolist() == [[1, -1, -1], [1, 2, -1]]
    assert windows(Numbers().ids([]), 3).shape == (0, 3, 3)


def test_a_text_without_new_tokens_is_refused() -> None:
    for texts in ([[14, 15, 3, 16]], [[]], [[3, 4]]):  # the last one's new token has nothing before it
        with pytest.raises(UserError, match="no new token"):
            measured(model(seed=3), model(seed=4, size=OLD), texts)
