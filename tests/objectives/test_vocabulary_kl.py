"""Self-distillation across tokenizations: its distributions, its zero, and a loop over single texts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from objectives_taught import FOLD, OLD, PHRASES, SIZE, TEXTS, batch, distribution, merged, model, objective

from warmstart.objectives.vocabulary_kl import binary_kl, folded, folded_kl

KNOWN = list(range(1, OLD))
NEW = [*KNOWN, *PHRASES]


def random_logits(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4


def test_folded_probabilities_sum_to_one_and_add_up() -> None:
    fold = torch.tensor([-1, 2, 2, 0, 5, 0, -1, 2])
    student = random_logits(6, 8)
    log_q, columns = folded(student, fold)
    assert columns.tolist() == [0, 2, 5]
    torch.testing.assert_close(log_q.exp().sum(1), torch.ones(6, dtype=torch.float64))
    p = student.masked_fill(fold < 0, -torch.inf).softmax(-1)
    expected = torch.stack([p[:, [3, 5]].sum(1), p[:, [1, 2, 7]].sum(1), p[:, 4]], dim=1)
    torch.testing.assert_close(log_q.exp(), expected)


def test_divergence_is_zero_however_the_mass_is_divided() -> None:
    """A student that reproduces the teacher but gives part of a piece's mass to new tokens; else positive."""
    teacher = random_logits(5, 6)
    student = torch.cat([teacher, torch.zeros(5, 2, dtype=torch.float64)], dim=1)
    student[:, 2] = teacher[:, 2] + math.log(0.2)
    student[:, 6] = teacher[:, 2] + math.log(0.5)
    student[:, 7] = teacher[:, 2] + math.log(0.3)
    fold = torch.tensor([0, 1, 2, 3, 4, 5, 2, 2])
    assert folded_kl(student, teacher, fold).abs().max() < 1e-14
    student[:, 7] += 3
    assert folded_kl(student, teacher, fold).min() > 1e-7


def test_extreme_logits_stay_finite() -> None:
    """Probabilities below the smallest number: the divergence is large, not infinite."""
    student = torch.tensor([[0.0, -400.0, -400.0]], requires_grad=True)
    found = folded_kl(student, torch.tensor([[0.0, 3.0]]), torch.tensor([0, 1, 1]))
    found.sum().backward()
    assert 300 < found.item() < 500 and student.grad.isfinite().all()


def test_binary_divergence() -> None:
    p, q = torch.tensor([0.3, 1e-9, 0.5]).double(), torch.tensor([0.6, 0.4, 0.5]).double()
    expected = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(binary_kl(p.log(), q.log()), expected)
    assert binary_kl(torch.zeros(1), torch.zeros(1)).isfinite().all()
    assert binary_kl(p.log(), p.log()).abs().max() == 0


def naive(student: Any, teacher: Any, weights: tuple[float, float, float]) -> tuple[float, int]:
    """Sums of (a), (b) and (c) over single texts and plain dictionaries."""
    sums, count = [0.0, 0.0, 0.0], 0
    for text in TEXTS:
        new, ends = merged(text)
        for i, end in enumerate(ends):
            count += 1
            p = distribution(teacher, text, end - 1, KNOWN)
            s = distribution(student, new, i, NEW)
            q = dict.fromkeys(KNOWN, 0.0)
            for token, mass in s.items():
                q[int(FOLD[token])] += mass
            part = 2 if new[i] in PHRASES else 0
            sums[part] += sum(p[v] * math.log(p[v] / q[v]) for v in KNOWN)
            if new[i] in PHRASES and i > 0:
                pieces = PHRASES[new[i]]
                begin = end - len(pieces)
                log_p = sum(
                    math.log(distribution(teacher, text, begin + j - 1, KNOWN)[piece])
                    for j, piece in enumerate(pieces)
                )
                one, two = math.exp(log_p), distribution(student, new, i - 1, NEW)[new[i]]
                sums[1] += one * math.log(one / two) + (1 - one) * math.log((1 - one) / (1 - two))
    a, b, c = sums
    return weights[0] * a + weights[1] * b + weights[2] * c, count


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1.0, 0.5, 2.0)])
@pytest.mark.parametrize("own", [False, True], ids=["teacher", "itself"])
def test_equals_a_loop_over_single_texts(weights: tuple[float, float, float], own: bool) -> None:
    student = model(seed=3)
    teacher = None if own else model(seed=4, size=OLD)
    made = objective(
        "vocabulary-kl",
        teacher=teacher,
        fold=FOLD,
        marginal_weight=weights[0],
        chain_weight=weights[1],
        after_weight=weights[2],
    )
    total, count = made.loss(student, batch(made))
    expected, places = naive(student, student if own else teacher, weights)
    assert count.item() == places
    assert total.item() == pytest.approx(expected, rel=1e-9)
    assert expected > 1e-3


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient with one place per chunk: logits are made again in the backward pass."""
    import warmstart.evaluation.cross_entropy as module

    student, made = model(seed=3), objective("vocabulary-kl", fold=FOLD)
    found = []
    for size in (None, 1):
        if size:
            monkeypatch.setattr(module, "chunk_size", lambda tokens, vocab: 1)
        student.zero_grad()
        total, _ = made.loss(student, batch(made))
        total.backward()
        found.append((total.detach(), student.lm_head.weight.grad.clone()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-11, atol=1e-13)


def test_is_zero_for_a_text_that_both_cut_alike() -> None:
    """The student has the teacher's body and old rows, and new tokens that it never says."""
    student = model(tied=False).eval()
    with torch.no_grad():
        student.lm_head.weight[OLD:] = 0
        hidden = student.model(input_ids=torch.tensor([TEXTS[2]])).last_hidden_state[0]
        direction = torch.linalg.lstsq(hidden, torch.full((4, 1), -2000.0, dtype=torch.float64)).solution
        student.lm_head.weight[OLD:] = direction[:, 0]
    made = objective("vocabulary-kl", fold=FOLD)
    total, count = made.loss(student, batch(made, [TEXTS[2]]))
    assert count.item() == 4 and abs(total.item()) < 1e-12


def test_only_new_rows_would_learn_the_old_text_by_heart() -> None:
    """(a) pulls on head rows at every place; (c) alone reaches the input rows of new tokens."""
    student = model()
    rows = student.get_input_embeddings().weight
    after = objective("vocabulary-kl", fold=FOLD, marginal_weight=0, chain_weight=0)
    (grad,) = torch.autograd.grad(after.loss(student, batch(after))[0], rows)
    assert grad[list(PHRASES)].abs().sum(1).min() > 0
    assert np.flatnonzero(grad.abs().sum(1).numpy() > 0).max() == max(PHRASES) < SIZE - 1


def test_tables_and_teachers_are_part_of_the_run() -> None:
    prints = {
        objective("vocabulary-kl").fingerprint,
        objective("vocabulary-kl", fold=FOLD).fingerprint,
        objective("vocabulary-kl", fold=FOLD, teacher=model()).fingerprint,
        objective("vocabulary-kl", fold=FOLD, teacher=model(seed=1)).fingerprint,
    }
    assert len(prints) == 4
