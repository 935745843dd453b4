"""The distillation objectives: their loss from full logits, their schedule, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_language_models import FAMILIES, model_for, tokenizer_for
from torch.nn import functional as F

import warmstart.objectives._head_loss as head_loss_module
from warmstart.foundation.errors import UserError
from warmstart.objectives import objectives
from warmstart.objectives._distilled import Distilled
from warmstart.objectives._divergence import between, divergence, top_of

NAMES = {"causal": "distillation", "masked": "masked-distillation", "seq2seq": "span-distillation"}
PLAIN = {"causal": "causal", "masked": "masked", "seq2seq": "span"}
TASK = {family: task for task, families in FAMILIES.items() for family in families}
LENGTH, PADDING = 24, 7


def made(family: str, teacher: Any = None, **settings: Any) -> Distilled:
    entry = objectives.get(NAMES[TASK[family]])
    found = entry.target(entry.settings.parse(settings), tokenizer_for(family), teacher=teacher)
    assert isinstance(found, Distilled)
    return found


def student(family: str, **changes: Any) -> Any:
    return model_for(family, len(tokenizer_for(family)), **changes)


def tutor(family: str, rows: int = PADDING) -> Any:
    """Another model with the same tokens, and rows of padding."""
    found = model_for(family, len(tokenizer_for(family)) + rows)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return found


def batch_of(objective: Any, family: str, count: int = 3) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    ordinary = [
        i for i in range(len(tokenizer_for(family))) if i not in tokenizer_for(family).all_special_ids
    ]
    found: dict[str, torch.Tensor] = objective.collate(rng.choice(ordinary, (count, LENGTH)), rng)
    return found


def naive(objective: Any, model: Any, teacher: Any, batch: Any, alpha: float, weight: float) -> torch.Tensor:
    """From all logits at once, written out."""
    options = objective.settings
    goal = objective.targets(batch["labels"])
    ours, theirs = (m(**objective.inputs(m, batch)).logits[goal != -100] for m in (model, teacher))
    rows = min(ours.shape[1], theirs.shape[1])
    goals: Any = theirs[:, :rows].detach()
    temperature = options.teacher_temperature or options.temperature
    if options.top_k:
        goals = top_of(goals, options.top_k, temperature)
    apart = divergence(
        ours[:, :rows],
        goals,
        options.divergence,
        temperature=options.temperature,
        teacher_temperature=temperature,
        mixing=options.mixing,
    )
    return alpha * F.cross_entropy(ours, goal[goal != -100], reduction="sum") + weight * apart.sum()


CASES: list[dict[str, Any]] = [
    {"alpha": 0.3, "beta": 0.7},
    {"alpha": 0.5, "beta": 2.0, "temperature": 3.0, "divergence": "reverse-kl", "top_k": 4},
    {"alpha": 0.0, "beta": 1.0, "divergence": "jensen-shannon", "mixing": 0.2},
    {
        "alpha": 1.0,
        "beta": 1.0,
        "temperature": 2.0,
        "scale_by_temperature": False,
        "divergence": "symmetric-kl",
    },
]


@pytest.mark.parametrize("family", list(TASK))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.get("divergence", "forward-kl"))
def test_equals_the_formula_on_full_logits(
    family: str, case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value and every gradient, in chunks; heads with scales, caps and biases, and one without a matrix."""
    monkeypatch.setattr(head_loss_module, "chunk_size", lambda tokens, vocab: 5)
    model, teacher = student(family, tied=False), tutor(family)
    objective = made(family, teacher, **case)
    objective.prepare(model, torch.device("cpu"))
    batch = batch_of(objective, family)
    scale = case.get("temperature", 1.0) ** 2 if case.get("scale_by_temperature", True) else 1.0
    expected = naive(objective, model, teacher, batch, case["alpha"], case["beta"] * scale)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    wanted = torch.autograd.grad(expected, [model.get_parameter(n) for n in names], allow_unused=True)
    total, count = objective.loss(model, batch)
    assert count.item() == len(objective.places(batch)) > 0
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-10)
    (total / 4).backward()  # norms compute in float32: a power of two rounds nothing
    for name, grad in zip(names, wanted, strict=True):
        if grad is not None:
            found = model.get_parameter(name).grad
            torch.testing.assert_close(
                found, grad / 4, rtol=1e-8, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
            )
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_weight_one_and_none_is_the_plain_objective_bit_for_bit(family: str) -> None:
    model, teacher = student(family), tutor(family)
    objective = made(family, teacher, alpha=1, beta=0)
    entry = objectives.get(PLAIN[TASK[family]])
    plain = entry.target(entry.settings.parse({}), tokenizer_for(family))
    found = []
    for asked in (objective, plain):
        model.zero_grad()
        total, count = asked.loss(model, batch_of(asked, family))
        total.backward()
        found.append([total.detach(), count, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert objective.shape(LENGTH) == plain.shape(LENGTH)


def test_a_temperature_of_ten_keeps_the_size_of_the_gradient() -> None:
    """T^2: the gradient of the softened divergence is that of logits, within a factor of a few."""
    lengths = []
    for temperature in (1.0, 10.0):
        model, teacher = student("llama"), tutor("llama")
        objective = made("llama", teacher, alpha=0, beta=1, temperature=temperature)
        objective.loss(model, batch_of(objective, "llama"))[0].backward()
        lengths.append(model.lm_head.weight.grad.norm().item())
    assert 0.1 < lengths[0] / lengths[1] < 10


def test_salt() -> None:
    """`(1 - w) CE + w CE(p_tau, q)` has the gradient of its documented settings, and stage two is plain."""
    w, tau = 0.667, 0.25
    model, teacher = student("llama"), tutor("llama", 0)
    objective = made("llama", teacher, alpha=1 - w, beta=w, teacher_temperature=tau, until=0.2)
    batch = batch_of(objective, "llama")
    ours, theirs = (m(input_ids=batch["input_ids"]).logits[:, :-1].flatten(0, 1) for m in (model, teacher))
    soft = (theirs / tau).softmax(-1).detach()
    goal = batch["input_ids"][:, 1:].flatten()
    salt = (1 - w) * F.cross_entropy(ours, goal, reduction="sum")
    salt = salt - w * (soft * ours.log_softmax(-1)).sum()
    wanted = torch.autograd.grad(salt, list(model.parameters()))
    objective.at(0.199)
    total, _ = objective.loss(model, batch)
    for p, grad in zip(torch.autograd.grad(total, list(model.parameters())), wanted, strict=True):
        torch.testing.assert_close(p, grad, rtol=1e-9, atol=1e-11)
    entropy = -(soft * soft.clamp(min=1e-300).log()).sum()
    torch.testing.assert_close(total, salt - w * entropy)
    objective.at(0.2)
    assert not objective.teaching
    entry = objectives.get("causal")
    plain = entry.target(entry.settings.parse({}), tokenizer_for("llama"))
    assert torch.equal(objective.loss(model, batch)[0], plain.loss(model, batch)[0])


def test_the_line_to_plain_training() -> None:
    model, teacher = student("llama"), tutor("llama")
    objective = made("llama", teacher, alpha=0.2, beta=0.6, until=0.5, schedule="linear")
    batch = batch_of(objective, "llama")
    for progress, left in ((0.0, 1.0), (0.25, 0.5), (0.4, 0.2), (0.5, 0.0), (0.9, 0.0)):
        objective.at(progress)
        expected = naive(objective, model, teacher, batch, 0.2 * left + (1 - left), 0.6 * left)
        torch.testing.assert_close(objective.loss(model, batch)[0], expected, rtol=1e-10, atol=0)
        assert objective.teaching == (left > 0)
    always = made("llama", teacher)
    always.at(1.0)
    assert always.teaching


def test_the_whole_top_is_the_whole_teacher() -> None:
    model, teacher = student("llama"), tutor("llama")
    size = len(tokenizer_for("llama"))
    losses = []
    for k in (None, size, 10 * size, size // 2):
        objective = made("llama", teacher, top_k=k, temperature=2.0)
        losses.append(objective.loss(model, batch_of(objective, "llama"))[0].item())
    assert losses[1] == losses[2] == pytest.approx(losses[0], rel=1e-12)
    assert losses[3] < losses[0] * (1 - 1e-9)  # a lower bound


def test_learns_nothing_from_itself() -> None:
    """Two copies of one model: the divergence and its gradient vanish."""
    model, teacher = student("gemma2"), student("gemma2")
    objective = made("gemma2", teacher, alpha=0, beta=1)
    total, _ = objective.loss(model, batch_of(objective, "gemma2"))
    total.backward()
    assert abs(total.item()) < 1e-12
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) < 1e-12


def test_autocast_and_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model, teacher = student("llama").float(), tutor("llama").float()
    objective = made("llama", teacher)
    batch = batch_of(objective, "llama")
    exact, _ = objective.loss(model, batch)
    with torch.no_grad():
        assert torch.equal(objective.loss(model, batch)[0], exact.detach())
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = objective.loss(model, batch)
        rounded.backward()
    assert rounded.dtype == torch.float32 and rounded.item() != exact.item()
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)
    assert model.lm_head.weight.grad.isfinite().all()


def test_what_is_refused() -> None:
    model, teacher = student("llama"), tutor("llama")
    device = torch.device("cpu")
    with pytest.raises(UserError, match="nobody to learn from"):
        made("llama").prepare(model, device)
    with pytest.raises(UserError, match="its own teacher"):
        made("llama", model).prepare(model, device)
    with pytest.raises(UserError, match=r"the teacher has 50 rows .*transplant.*vocabulary-kl"):
        made("llama", model_for("llama", 50)).prepare(model, device)
    short = model_for("llama", len(tokenizer_for("llama")), positions=LENGTH - 1)
    objective = made("llama", short)
    with pytest.raises(UserError, match=f"at most {LENGTH - 1} tokens at once.*block_size: {LENGTH - 1}"):
        objective.loss(model, batch_of(objective, "llama"))
    with pytest.raises(UserError, match="both 0"):
        made("llama", teacher, alpha=0, beta=0)
    with pytest.raises(UserError, match="cache needs top_k"):
        made("llama", teacher, cache="float16")
    entry = objectives.get("distillation")
    theirs = tokenizer_for("roberta")
    with pytest.raises(UserError, match=r"vocabulary has [\d,]+, the student's [\d,]+, and \d+ of them"):
        entry.target(
            entry.settings.parse({}), tokenizer_for("llama"), teacher=teacher, teacher_tokenizer=theirs
        )
    same = tokenizer_for("llama")
    entry.target(entry.settings.parse({}), same, teacher=teacher, teacher_tokenizer=same)


def test_the_teacher_is_frozen_and_told_apart() -> None:
    model, teacher = student("llama"), tutor("llama")
    teacher.train()
    objective = made("llama", teacher)
    objective.prepare(model, torch.device("cpu"))
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert objective.fingerprint != made("llama", tutor("llama", 3)).fingerprint
    assert made("llama").fingerprint is None


class Halves:
    """A teacher who reads pairs: token 2n and token 2n + 1 are his token n, which he writes as 2n."""

    ratio, fingerprint = 0.5, "halves"
    shared = np.array([[2 * n, n] for n in range(20)])

    def __call__(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        theirs = ids[: len(ids) // 2 * 2 : 2] // 2
        place = np.where(np.arange(len(ids)) % 2 == 0, np.arange(len(ids)) // 2, -1)
        return theirs, np.where(place < len(theirs), place, -1)


RECUT: list[dict[str, Any]] = [
    {"alpha": 0.0, "beta": 1.0, "top_k": 3},
    {"alpha": 0.3, "beta": 0.7, "top_k": 500, "temperature": 2.0},
    {"alpha": 0.5, "beta": 1.0, "top_k": 4, "divergence": "jensen-shannon", "teacher_temperature": 0.5},
]


@pytest.mark.parametrize("case", RECUT, ids=["top", "all", "jensen-shannon"])
def test_a_teacher_with_another_vocabulary(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Place by place from all logits: what both know and the rest, or the text's own token."""
    monkeypatch.setattr("warmstart.evaluation.cross_entropy.chunk_size", lambda tokens, vocab: 7)
    model, teacher = student("llama"), model_for("llama", 150)
    entry = objectives.get("distillation")
    settings = entry.settings.parse({"alignment": "offsets", **case})
    objective: Any = entry.target(settings, tokenizer_for("llama"), teacher=teacher, recut=Halves())
    objective.prepare(model, torch.device("cpu"))
    blocks = np.random.default_rng(0).integers(0, 40, (3, LENGTH))
    blocks[1, 15:] = -1
    batch = objective.collate(blocks, np.random.default_rng(0))
    ours, expected = model(input_ids=batch["input_ids"]).logits, torch.zeros((), dtype=torch.float64)
    scale = settings.temperature**2
    heard = settings.teacher_temperature or settings.temperature
    k = min(settings.top_k, 20)
    for row, ids in enumerate(blocks):
        ids = ids[ids >= 0]
        theirs, place = Halves()(ids)
        said = teacher(input_ids=torch.tensor(theirs)[None]).logits[0].detach() / heard
        for at in range(1, len(ids)):
            logits, token = ours[row, at - 1], int(ids[at])
            log_q = (logits / settings.temperature).log_softmax(-1)
            if place[at] > 0:
                p = said[place[at] - 1].softmax(-1)
                best = p[:20].topk(k).indices
                log_p = torch.cat([p[best].log(), (1 - p[best].sum()).log()[None]])
                q = log_q.exp()[2 * best]
                log_q = torch.cat([q.log(), (1 - q.sum()).log()[None]])
            else:
                log_p = torch.full_like(log_q, -1e300)
                log_p[token] = 0
            apart = between(log_q[None], log_p[None], settings.divergence, settings.mixing).sum()
            own = F.cross_entropy(logits[None], torch.tensor([token]))
            expected = expected + settings.beta * scale * apart + settings.alpha * own
    names = dict(model.named_parameters())
    wanted = torch.autograd.grad(expected, list(names.values()))
    total, count = objective.loss(model, batch)
    assert count.item() == 2 * (LENGTH - 1) + 14
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-10)
    total.backward()
    for (name, parameter), grad in zip(names.items(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-7, atol=1e-9, msg=name)
    assert objective.shape(LENGTH).teacher == LENGTH // 2
    assert objective.shape(LENGTH).taught == 1.0


def test_an_alignment_of_equal_vocabularies_changes_nothing() -> None:
    """The same teacher, read through the identity, and not."""
    model, teacher = student("llama"), tutor("llama", 0)
    size = len(tokenizer_for("llama"))

    class Same:
        ratio, fingerprint, shared = 1.0, "same", np.arange(size)[:, None].repeat(2, 1)

        def __call__(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return ids, np.arange(len(ids))

    entry = objectives.get("distillation")
    losses = []
    for recut, alignment in ((None, "none"), (Same(), "warp")):
        options = entry.settings.parse({"top_k": 5, "alignment": alignment})
        objective: Any = entry.target(options, tokenizer_for("llama"), teacher=teacher, recut=recut)
        objective.prepare(model, torch.device("cpu"))
        losses.append(objective.loss(model, batch_of(objective, "llama"))[0].item())
        assert objective.shape(LENGTH).teacher == LENGTH
    assert losses[1] == pytest.approx(losses[0], rel=1e-13)


def test_what_an_alignment_needs() -> None:
    entry = objectives.get("distillation")
    with pytest.raises(UserError, match="an alignment needs top_k"):
        entry.settings.parse({"alignment": "warp"})
    with pytest.raises(UserError, match="reverse-kl has no finite value"):
        entry.settings.parse({"alignment": "warp", "top_k": 5, "divergence": "reverse-kl"})
    objective: Any = entry.target(
        entry.settings.parse({"alignment": "offsets", "top_k": 5}),
        tokenizer_for("llama"),
        teacher=tutor("llama"),
    )
    with pytest.raises(UserError, match=r"needs the text in its own tokens.*Recut"):
        objective.prepare(student("llama"), torch.device("cpu"))
