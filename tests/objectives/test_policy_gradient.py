"""Policy gradients: against every answer that can be written, against the formula, and through the loop."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_language_models import FAMILIES, model_for, tokenizer_for

sys.path.append(str(Path(__file__).parents[1] / "training"))
import training_tiny as tiny

from warmstart.evaluation.sampling import uniforms, write
from warmstart.foundation.errors import UserError
from warmstart.objectives import objectives
from warmstart.objectives._policy import advantages, policy_loss
from warmstart.training import Interrupted, TrainSettings, train

END, VOCAB, LONGEST, HOT = 3, 4, 2, 1.3
PROMPTS = [[1, 2, 0], [2]]


pytestmark = pytest.mark.usefixtures("one_thread")


def every_answer() -> list[list[int]]:
    """All answers of up to two tokens, of which the last ends them or fills the room."""
    short = [[END]]
    return short + [[a, b] for a, b in itertools.product(range(VOCAB), repeat=2) if a != END]


def padded(answers: list[list[int]]) -> torch.Tensor:
    return torch.tensor([a + [-1] * (LONGEST - len(a)) for a in answers])


def log_chances(model: Any, prompt: list[int], temperature: float = HOT) -> torch.Tensor:
    """`log p(answer | prompt)` of every answer, one forward pass each, no padding."""
    found = []
    for answer in every_answer():
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, :, :VOCAB] / temperature
        places = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        found.append(sum(logits[i].log_softmax(-1)[t] for i, t in zip(places, answer, strict=True)))
    return torch.stack(found)


def gradients(model: Any, value: torch.Tensor) -> list[torch.Tensor]:
    names = [p for p in model.parameters() if p.requires_grad]
    return [g for g in torch.autograd.grad(value, names, allow_unused=True) if g is not None]


def close(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("family", FAMILIES["causal"])
def test_in_expectation_it_is_the_gradient_of_the_mean_reward(family: str) -> None:
    """Over every pair of answers, each weighted by its probability: nothing is sampled."""
    model = model_for(family, VOCAB + 3)
    answers = every_answer()
    assert len(answers) == 13
    rewards = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 13)))
    weights, mean = [], torch.zeros((), dtype=torch.float64)
    for prompt, earned in zip(PROMPTS, rewards, strict=True):
        chances = log_chances(model, prompt).exp()
        assert chances.sum().item() == pytest.approx(1, abs=1e-6), "these are all answers that there are"
        mean = mean + (chances * earned).sum()
        pairs = torch.cartesian_prod(torch.arange(13), torch.arange(13))
        better = advantages(earned[pairs], "leave-one-out")
        likely = chances.detach()[pairs].prod(-1, keepdim=True)
        weights.append(torch.zeros(13, dtype=torch.float64))
        weights[-1].index_add_(0, pairs.reshape(-1), (likely * better).reshape(-1))
    loss = policy_loss(
        model,
        PROMPTS,
        padded(answers + answers),
        torch.cat(weights),
        temperature=HOT,
        tokens=VOCAB,
    )
    assert loss.item() == 0, "the policy gradient has no loss"
    found = gradients(model, loss)
    rough = 1e-5 if family in ("llama", "gemma2", "cohere", "granite") else 1e-8  # norms in float32
    for a, b in zip(found, gradients(model, -2 * mean), strict=True):
        torch.testing.assert_close(a, b, rtol=rough, atol=rough * 1e-1)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_divergence_is_that_of_whole_distributions(family: str) -> None:
    """Value and gradient against both models' full logits, prompt by prompt."""
    model, other = model_for(family, VOCAB + 3), model_for(family, VOCAB + 3, tied=False)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    answers = [[1, 2], [END], [0, END], [2, 2]]
    wanted: Any = 0.0
    for prompt, answer in zip([PROMPTS[0]] * 2 + [PROMPTS[1]] * 2, answers, strict=True):
        ids = torch.tensor([prompt + answer])
        ours, theirs = (
            (m(input_ids=ids).logits[0, len(prompt) - 1 : -1, :VOCAB] / HOT).log_softmax(-1)
            for m in (model, other)
        )
        wanted = wanted + 0.7 * (ours.exp() * (ours - theirs.detach())).sum()
    options: dict[str, Any] = {"kl_weight": 0.7, "temperature": HOT, "tokens": VOCAB}
    nothing = torch.zeros(4, dtype=torch.float64)
    found = policy_loss(model, PROMPTS, padded(answers), nothing, reference=other, **options)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    for a, b in zip(gradients(model, found), gradients(model, wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    itself = policy_loss(model, PROMPTS, padded(answers), nothing, reference=model, **options)
    assert itself.item() == pytest.approx(0, abs=1e-12)


def test_advantages() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 3.0], [2.0, 2.0, 2.0, 2.0]], dtype=torch.float64)
    left = advantages(rewards, "leave-one-out")
    by_hand = [[r - (4 - r) / 3 for r in (1.0, 0.0, 0.0, 3.0)], [0.0] * 4]
    torch.testing.assert_close(left, torch.tensor(by_hand, dtype=torch.float64))
    group = advantages(rewards, "group")
    deviation = np.std([1, 0, 0, 3])
    torch.testing.assert_close(group[0], (rewards[0] - 1) / (deviation + 1e-6))
    assert group[1].abs().max() == 0, "equal rewards teach nothing"


def tokens_of(text: str) -> list[int]:
    return list(tokenizer_for("llama")(text, add_special_tokens=False)["input_ids"])


def block(question: str, answer: str, length: int = 40) -> np.ndarray:
    """Ids and what is asked for, closed by the end of the text."""
    end = tokenizer_for("llama").eos_token_id
    front, back = [end, *tokens_of(question)], [*tokens_of(answer), end]
    rest = [-1] * (length - len(front) - len(back))
    return np.array([[*front, *back, *rest], [*[-1] * len(front), *back, *rest]])


def made(model: Any, **settings: Any) -> Any:
    entry = objectives.get("policy-gradient")
    given = {"max_new_tokens": 5, "marker_of_result": "=", **settings}
    objective = entry.target(entry.settings.parse(given), tokenizer_for("llama"))
    objective.prepare(model, torch.device("cpu"))
    return objective


BLOCKS = np.stack([block("1+1", " =2"), block("two and two", " =4"), block("3", " 1+2=3")])


def test_a_batch_is_blocks_and_seeds_and_equal_draws_write_equal_answers() -> None:
    model = model_for("llama", len(tokenizer_for("llama")))
    objective, before = made(model), BLOCKS.copy()
    batches = [objective.collate(BLOCKS, np.random.default_rng(s)) for s in (5, 5, 6)]
    assert np.array_equal(BLOCKS, before)
    for name in ("input_ids", "labels", "seeds"):
        assert batches[0][name].dtype == torch.int64 and len(batches[0][name]) == 3
        assert torch.equal(batches[0][name], batches[1][name])
    assert not torch.equal(batches[0]["seeds"], batches[2]["seeds"])
    losses = [objective.loss(model, batch)[0].item() for batch in batches]
    torch.rand(100)
    assert losses[0] == losses[1] == objective.loss(model, batches[0])[0].item()


@pytest.mark.parametrize("kind", ["leave-one-out", "group"])
@pytest.mark.parametrize("kl_weight", [0.0, 0.4])
def test_loss_is_the_formula_on_the_answers_that_were_written(
    kind: str, kl_weight: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are written here again; the objective's marks, their number and every gradient."""
    tokenizer = tokenizer_for("llama")
    model = model_for("llama", len(tokenizer) + 5)
    objective = made(
        model, samples=3, advantage=kind, kl_weight=kl_weight, temperature=HOT, format_weight=0.5
    )
    if kl_weight:
        with torch.no_grad():
            for parameter in model.parameters():  # the reference is the model as it was
                parameter.mul_(1.1)
    batch = objective.collate(BLOCKS, np.random.default_rng(0))
    prompts = [ids[: (asked >= 0).argmax()].tolist() for ids, asked in BLOCKS]
    answers = write(
        model,
        prompts,
        uniforms(batch["seeds"].tolist(), 3, 5),
        end=tokenizer.eos_token_id,
        tokens=len(tokenizer),
        temperature=HOT,
    )
    # marks of random answers are all alike: rewards are given by the number of tokens instead
    from warmstart.evaluation import rollouts
    from warmstart.evaluation.reward import Graded

    golds: list[str] = []

    def grade(written: torch.Tensor, wanted: Any, *_: Any) -> list[Graded]:
        golds.extend(wanted)
        return [Graded(float(row.clamp(min=0).sum() % 7), False, False) for row in written]

    monkeypatch.setattr(rollouts, "grade", grade)
    rewards = (answers.clamp(min=0).sum(-1) % 7).double().reshape(3, 3)
    assert rewards.unique().numel() > 3
    found, count = objective.loss(model, batch)
    assert golds == [" =2", " =4", " 1+2=3"]
    assert count.item() == 9
    better = advantages(rewards, kind).reshape(-1)
    wanted: Any = 0.0
    reported = -rewards.sum()
    for row, ids in enumerate(answers.tolist()):
        ids, prompt = [i for i in ids if i >= 0], prompts[row // 3]
        read = torch.tensor([prompt + ids])
        cut = slice(len(prompt) - 1, -1)
        ours = (model(input_ids=read).logits[0, cut, : len(tokenizer)] / HOT).log_softmax(-1)
        wanted = wanted - better[row] * ours[range(len(ids)), ids].sum()
        if kl_weight:
            other = objective.reference(input_ids=read).logits[0, cut, : len(tokenizer)]
            apart = kl_weight * (ours.exp() * (ours - (other / HOT).log_softmax(-1))).sum()
            wanted, reported = wanted + apart, reported + apart.detach()
    assert found.item() == pytest.approx(reported.item(), rel=1e-6)
    for a, b in zip(gradients(model, found), gradients(model, wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_the_reference_is_the_start_and_is_frozen() -> None:
    model = model_for("llama", len(tokenizer_for("llama")))
    objective = made(model, kl_weight=0.1)
    assert objective.reference is not model
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), objective.reference.parameters()))
    assert not any(p.requires_grad for p in objective.reference.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert made(model, kl_weight=0).reference is None
    model.train()
    objective.loss(model, objective.collate(BLOCKS, np.random.default_rng(0)))
    assert model.training and all(module.training for module in model.modules())


def test_flops_count_every_answer() -> None:
    """Forward and backward three, writing one, the reference one: 4 * 5 / 3 passes, rounded up."""
    model = model_for("llama", len(tokenizer_for("llama")))
    assert made(model, samples=4).shape(32).passes == 7
    assert made(model, samples=3, kl_weight=0).shape(32).passes == 4


def test_text_without_prompts_or_results_is_refused() -> None:
    model = model_for("llama", len(tokenizer_for("llama")))
    objective = made(model)
    plain = objective.collate(BLOCKS[:, 0].clip(min=1), np.random.default_rng(0))
    with pytest.raises(UserError, match="no answer with a prompt in front of it"):
        objective.loss(model, plain)
    unmarked = objective.collate(np.stack([block("1+1", " two")]), np.random.default_rng(0))
    with pytest.raises(UserError, match="' two' has no result behind '='"):
        objective.loss(model, unmarked)
    with pytest.raises(UserError, match="samples"):
        made(model, samples=1)


class Blocks(tiny.ArrayBlocks):
    """Sums of bytes with answers."""

    def __init__(self) -> None:
        cut = tiny.byte_tokenizer()
        end = cut.eos_token_id
        found = []
        for a, b in itertools.product(range(4), repeat=2):
            front = [end, *cut(f"{a}+{b}", add_special_tokens=False)["input_ids"]]
            back = [*cut(f"={a + b}", add_special_tokens=False)["input_ids"], end]
            rest = [-1] * (12 - len(front) - len(back))
            found.append([[*front, *back, *rest], [*[-1] * len(front), *back, *rest]])
        self.ids = np.array(found)


def test_it_learns_in_the_loop_and_resumes_exactly(tmp_path: Path) -> None:
    """More reward at the end; stopped and continued, and in two passes, the same weights and curve."""
    objective = {
        "name": "policy-gradient",
        "marker_of_result": "=",
        "max_new_tokens": 2,
        "format_weight": 0.0,
        "samples": 6,
        "kl_weight": 0.01,
    }
    settings = TrainSettings(
        objective=objective,
        block_size=12,
        per_device_train_batch_size=8,
        learning_rate=5e-3,
        max_steps=12,
        eval_points=[0.5],
        save_steps=4,
    )

    def evaluate(model: Any) -> float:
        """How unlikely right answers are."""
        ids = torch.from_numpy(Blocks().ids[:, 0]).clamp(min=0)
        logs = model(input_ids=ids).logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
        return 1 - logs[:, 3:5].sum(-1).exp().mean().item()

    def start() -> Any:
        model = tiny.llama()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(30):  # it has seen answers, so that some of its own are right
            ids = torch.from_numpy(Blocks().ids[:, 0]).clamp(min=0)
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return model

    def run(folder: str, calls: int | None = None, **changes: Any) -> Any:
        seen = 0

        def measured(model: Any) -> float:
            nonlocal seen
            seen += 1
            if seen == calls:
                raise KeyboardInterrupt
            return evaluate(model)

        changed = settings.model_copy(update=changes)
        return train(start(), tiny.byte_tokenizer(), Blocks(), changed, tmp_path / folder, evaluate=measured)

    whole = run("whole")
    assert 1 - whole.curve.final > 1.5 * (1 - whole.curve.points[0].bpb), "right answers became likelier"
    with pytest.raises(Interrupted):
        run("part", calls=2)
    rest = run("part")
    assert tiny.curve(rest) == tiny.curve(whole)
    assert tiny.same_bits(rest.checkpoint, whole.checkpoint)
    cut = run("cut", per_device_train_batch_size=4, gradient_accumulation_steps=2)
    assert cut.curve.final == pytest.approx(whole.curve.final, abs=1e-4), "seeds go with their prompts"


def test_tokens_that_cannot_be_written_count_nothing() -> None:
    """A logit of minus infinity, in both models or in one."""
    from warmstart.objectives._policy import _Places

    logits = torch.tensor([[0.3, -1.0, -torch.inf, 0.5]], dtype=torch.float64, requires_grad=True)
    goal = torch.tensor([[0.1, 0.2, -torch.inf, -0.4]], dtype=torch.float64).log_softmax(-1)
    token, weight = torch.tensor([1]), torch.tensor([0.6], dtype=torch.float64)
    value: Any = _Places.apply(logits, token, weight, goal.clone(), 0.5, HOT)
    (found,) = torch.autograd.grad(value, logits)
    kept = [0, 1, 3]
    plain = logits.detach()[:, kept].requires_grad_()
    ours = (plain / HOT).log_softmax(-1)
    apart = 0.5 * (ours.exp() * (ours - goal[:, kept])).sum()
    (wanted,) = torch.autograd.grad(apart - 0.6 * ours[0, 1], plain)
    torch.testing.assert_close(value, apart)
    torch.testing.assert_close(found[:, kept], wanted)
    assert found[0, 2] == 0
