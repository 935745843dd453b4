"""Divergences against loops over classes, their bounds and limits, and tops of distributions."""

from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from warmstart.objectives._divergence import (
    Top,
    between,
    class_loss,
    divergence,
    log_softmax,
    on_top,
    soft_cross_entropy,
    top_of,
)

KINDS = ["forward-kl", "reverse-kl", "symmetric-kl", "jensen-shannon"]
N, C = 5, 9


def random_logits(seed: int, scale: float = 3.0, classes: int = C) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return scale * torch.randn(N, classes, dtype=torch.float64, generator=draw)


STUDENT, TEACHER = random_logits(0), random_logits(1)


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(x / temperature) for x in row]
    return [x / sum(powers) for x in powers]


def kl(a: list[float], b: list[float]) -> float:
    return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)


def naive(q: list[float], p: list[float], kind: str, w: float) -> float:
    """q the student, p the teacher."""
    m = [w * x + (1 - w) * y for x, y in zip(p, q, strict=True)]
    return {
        "forward-kl": lambda: kl(p, q),
        "reverse-kl": lambda: kl(q, p),
        "symmetric-kl": lambda: w * kl(p, q) + (1 - w) * kl(q, p),
        "jensen-shannon": lambda: w * kl(p, m) + (1 - w) * kl(q, m),
    }[kind]()


@pytest.mark.parametrize(("kind", "own", "theirs", "w"), product(KINDS, [1.0, 2.5], [None, 0.25], [0.5, 0.1]))
def test_equals_a_loop_over_classes(kind: str, own: float, theirs: float | None, w: float) -> None:
    found = divergence(
        STUDENT, TEACHER, kind, temperature=own, teacher_temperature=theirs, mixing=w
    )  # fmt: skip
    expected = [
        naive(softmax(q, own), softmax(p, theirs or own), kind, w)
        for q, p in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [None, 1, 3, C])
def test_gradient_by_finite_differences(kind: str, k: int | None) -> None:
    teacher: Tensor | Top = TEACHER if k is None else top_of(TEACHER, k, 2.0)
    student = STUDENT.clone().requires_grad_()
    options = {"temperature": 2.0, "mixing": 0.3}
    assert torch.autograd.gradcheck(lambda x: divergence(x, teacher, kind, **options), student, atol=1e-8)


def test_jensen_shannon_is_symmetric_and_bounded() -> None:
    one, two = (divergence(*pair, "jensen-shannon") for pair in ((STUDENT, TEACHER), (TEACHER, STUDENT)))
    torch.testing.assert_close(one, two, rtol=1e-12, atol=0)
    apart = torch.tensor([[60.0, 0.0], [0.0, 60.0]]).double()
    assert divergence(apart, apart.flip(0), "jensen-shannon").allclose(
        torch.tensor(math.log(2), dtype=torch.float64)
    )
    for w in (0.5, 0.2, 0.9):
        most = -w * math.log(w) - (1 - w) * math.log(1 - w)
        wild = divergence(30 * STUDENT, 30 * TEACHER, "jensen-shannon", mixing=w)
        assert (wild <= most + 1e-12).all() and most <= math.log(2) + 1e-12
        assert wild.max() > 0.95 * most
    assert not divergence(STUDENT, TEACHER, "forward-kl").allclose(divergence(TEACHER, STUDENT, "forward-kl"))


@pytest.mark.parametrize("kind", KINDS)
def test_is_zero_for_equals_and_positive_else(kind: str) -> None:
    assert divergence(STUDENT, STUDENT + 7, kind).abs().max() < 1e-12  # logits are known up to a constant
    assert divergence(STUDENT, TEACHER, kind).min() > 1e-3


def test_the_mixture_becomes_the_kl_at_its_ends() -> None:
    w = 1e-6
    for kind, mixing in (("forward-kl", w), ("reverse-kl", 1 - w)):
        found = divergence(STUDENT, TEACHER, "jensen-shannon", mixing=mixing) / w
        torch.testing.assert_close(found, divergence(STUDENT, TEACHER, kind), rtol=1e-2, atol=0)


def test_temperature_limits() -> None:
    """T^2 D for T to infinity is half the squared distance of centred logits by C; D for T to 0 compares the
    likeliest classes alone."""
    T = 1e4
    centred = [x - x.mean(1, keepdim=True) for x in (STUDENT, TEACHER)]
    expected = (centred[0] - centred[1]).square().sum(1) / (2 * C)
    for kind, share in (("forward-kl", 1), ("reverse-kl", 1), ("symmetric-kl", 1), ("jensen-shannon", 1 / 4)):
        found = T**2 * divergence(STUDENT, TEACHER, kind, temperature=T)
        torch.testing.assert_close(found, share * expected, rtol=1e-3, atol=0)
    cold = divergence(STUDENT, TEACHER, "jensen-shannon", temperature=1e-3)
    same = STUDENT.argmax(1) == TEACHER.argmax(1)
    torch.testing.assert_close(cold, math.log(2) * (~same).double())
    sharp = divergence(STUDENT, TEACHER, teacher_temperature=1e-3)  # one-hot teacher: cross-entropy
    expected = -log_softmax(STUDENT).gather(1, TEACHER.argmax(1, keepdim=True))[:, 0]
    torch.testing.assert_close(sharp, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_top_k_is_a_lower_bound_that_grows_to_the_whole(kind: str) -> None:
    """A chain of mergers of classes: every further class that is known can only add."""
    whole = divergence(STUDENT, TEACHER, kind, temperature=1.5)
    values = [divergence(STUDENT, top_of(TEACHER, k, 1.5), kind, temperature=1.5) for k in range(1, C + 1)]
    for less, more in pairwise(values):
        assert (less <= more + 1e-12).all()
    assert (values[0] < whole - 1e-3).any()
    torch.testing.assert_close(values[-1], whole, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(values[-2], whole, rtol=1e-12, atol=1e-13)  # the tail is a single class
    assert top_of(TEACHER, C + 5).tail is None


def test_top_k_equals_a_loop_with_a_tail() -> None:
    k, T = 3, 0.7
    found = divergence(STUDENT, top_of(TEACHER, k, T), "jensen-shannon", temperature=T, mixing=0.3)
    for row, q, p in zip(found.tolist(), STUDENT.tolist(), TEACHER.tolist(), strict=True):
        q, p = softmax(q, T), softmax(p, T)
        kept = sorted(range(C), key=lambda c: -p[c])[:k]
        q, p = ([x[c] for c in kept] + [sum(x) - sum(x[c] for c in kept)] for x in (q, p))
        assert row == pytest.approx(naive(q, p, "jensen-shannon", 0.3), rel=1e-10)


def test_tails_below_rounding_are_exact() -> None:
    """A tail of e^-50: as 1 minus the rest it would be lost."""
    sure = torch.tensor([[50.0, 0.0, 0.0, 0.0]]).double()
    log_q, log_p = on_top(sure, top_of(sure, 1))
    expected = math.log(3) - 50 - math.log1p(3 * math.exp(-50))
    assert log_q[0, 1].item() == pytest.approx(expected, rel=1e-14) == log_p[0, 1].item()


@pytest.mark.parametrize("kind", KINDS)
def test_excluded_classes_are_safe(kind: str) -> None:
    """Logits of minus infinity on both sides, on one side, and gradients of them."""
    student = torch.tensor([[0.0, 1.0, -torch.inf, 2.0]], requires_grad=True)
    teacher = torch.tensor([[1.0, 0.0, -torch.inf, -torch.inf]])
    found = divergence(student, teacher, kind)
    found.sum().backward()
    assert student.grad.isfinite().all() and found.isfinite().all()
    if kind in ("forward-kl", "jensen-shannon"):
        q, p = softmax([0.0, 1.0, -math.inf, 2.0], 1), softmax([1.0, 0.0, -math.inf, -math.inf], 1)
        assert found.item() == pytest.approx(naive(q, p, kind, 0.5), rel=1e-5)


def test_half_precision_is_computed_in_single() -> None:
    found = divergence(STUDENT.bfloat16(), TEACHER.bfloat16())
    assert found.dtype == torch.float32
    expected = divergence(STUDENT.bfloat16().double(), TEACHER.bfloat16().double())
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_soft_cross_entropy_is_forward_kl_and_entropy() -> None:
    p = log_softmax(TEACHER, 2.0)
    entropy = -(p.exp() * p).sum(1)
    found = soft_cross_entropy(STUDENT, TEACHER, 2.0)
    torch.testing.assert_close(found, divergence(STUDENT, TEACHER, temperature=2.0) + entropy)
    torch.testing.assert_close(between(p, p) + 0, torch.zeros(N).double())


def test_class_loss() -> None:
    """Soft cross-entropy alone (Pre-trained Distillation), Jensen-Shannon alone (SSLD), and with labels."""
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    found = class_loss(student, teacher)
    torch.testing.assert_close(found, soft_cross_entropy(STUDENT, TEACHER).mean())
    found.backward()
    assert teacher.grad is None
    expected = (STUDENT.softmax(1) - TEACHER.softmax(1)) / N
    torch.testing.assert_close(student.grad, expected, rtol=1e-10, atol=1e-12)
    found = class_loss(STUDENT, TEACHER, kind="jensen-shannon")
    torch.testing.assert_close(found, divergence(STUDENT, TEACHER, "jensen-shannon").mean())
    labels = torch.tensor([0, 3, -100, 8, 1])
    found = class_loss(
        STUDENT, TEACHER, labels, kind="forward-kl", alpha=0.25, beta=0.5, temperature=3.0
    )  # fmt: skip
    nll = -sum(log_softmax(STUDENT)[i, c] for i, c in enumerate(labels.tolist()) if c >= 0)
    taught = divergence(STUDENT, TEACHER, temperature=3.0).sum()
    torch.testing.assert_close(found, (0.25 * nll + 0.5 * 9 * taught) / N)
    with pytest.raises(ValueError, match="labels"):
        class_loss(STUDENT, TEACHER, alpha=1.0)
