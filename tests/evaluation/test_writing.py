"""What models write behind prompts: against their own probabilities, one prompt at a time, without cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_language_models import FAMILIES, model_for

from warmstart.evaluation.sampling import answered, uniforms, write
from warmstart.foundation.errors import UserError

PROMPTS = [[5, 9, 3], [7], [4, 8, 8, 2, 11, 6], [12, 1]]
END, VOCAB = 3, 20


pytestmark = pytest.mark.usefixtures("one_thread")


def slowly(model: Any, prompt: list[int], draws: torch.Tensor, tokens: int, temperature: float) -> list[int]:
    """One sample, without cache, padding or mask."""
    ids, found = list(prompt), []
    for number in draws.tolist():
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1, :tokens]
        sums = (logits / temperature).softmax(-1).cumsum(-1).tolist()
        token = next(i for i, total in enumerate(sums) if number < total)
        ids.append(token)
        found.append(token)
        if token == END:
            break
    return found


@pytest.mark.parametrize("family", FAMILIES["causal"])
def test_samples_are_those_of_one_prompt_alone(family: str) -> None:
    """Left padding, cache, copies of it for each sample, temperature and rows that are no tokens."""
    model = model_for(family, VOCAB + 3)
    if family == "gemma2":  # its attention in transformers makes the lowest float64 an infinity of float32
        model = model.float()
    draws = uniforms([1, 2, 3, 4], 3, 7)
    found = write(model, PROMPTS, draws, end=END, tokens=VOCAB, temperature=1.7)
    assert found.shape == (12, 7) and found.max() < VOCAB
    with torch.no_grad():
        for row, ids in enumerate(found.tolist()):
            expected = slowly(model, PROMPTS[row // 3], draws[row // 3, row % 3], VOCAB, 1.7)
            assert ids == expected + [-1] * (7 - len(expected))


def test_a_seed_and_a_prompt_make_a_sample() -> None:
    """Whatever stands beside it, and in whatever order."""
    model = model_for("llama", VOCAB)
    seeds = [11, 2**62 + 1, 13, 14]
    whole = write(model, PROMPTS, uniforms(seeds, 2, 6), end=END)
    again = write(model, PROMPTS[::-1], uniforms(seeds[::-1], 2, 6), end=END)
    alone = [write(model, [p], uniforms([s], 2, 6), end=END) for p, s in zip(PROMPTS, seeds, strict=True)]
    assert torch.equal(whole, torch.cat(alone))
    assert torch.equal(whole.view(4, 2, 6), again.view(4, 2, 6).flip(0))
    other = write(model, PROMPTS, uniforms([1, 2, 3, 4], 2, 6), end=END)
    assert not torch.equal(whole, other)
    assert not torch.equal(whole[0], whole[1]), "two samples of a prompt are drawn apart"


def test_tokens_come_as_often_as_they_are_likely() -> None:
    """Evenly spread numbers: the count of each token is its probability, to one."""
    model, count = model_for("llama", VOCAB), 4000
    numbers = ((torch.arange(count) + 0.5) / count).double()[None, :, None]
    found = write(model, [PROMPTS[2]], numbers, end=END)[:, 0]
    with torch.no_grad():
        chances = model(input_ids=torch.tensor([PROMPTS[2]])).logits[0, -1].softmax(-1)
    assert (found.bincount(minlength=VOCAB) - count * chances).abs().max() <= 1


def test_the_largest_number_is_a_token_of_some_probability() -> None:
    model = model_for("llama", VOCAB)
    with torch.no_grad():
        model.lm_head.weight.mul_(300.0)  # nearly all probabilities are exactly zero
    most = torch.full((1, 1, 1), 1 - 2**-53, dtype=torch.float64)
    token = int(write(model, [PROMPTS[0]], most, end=END))
    with torch.no_grad():
        chances = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    assert token == int((chances > 1e-16).nonzero().max())


def test_answers_are_put_behind_their_prompts() -> None:
    answers = torch.tensor([[4, 3, -1], [6, 6, 6], [3, -1, -1], [9, 8, 3]])
    found = answered([[5, 9, 2], [7]], answers)
    assert found.ids.tolist() == [
        [5, 9, 2, 4, 3, 0],
        [5, 9, 2, 6, 6, 6],
        [7, 3, 0, 0, 0, 0],
        [7, 9, 8, 3, 0, 0],
    ]
    assert found.tokens.tolist() == [4, 3, 6, 6, 6, 3, 9, 8, 3]
    assert found.rows.tolist() == [0, 0, 1, 1, 1, 2, 3, 3, 3]
    assert torch.equal(found.ids.reshape(-1)[found.where + 1], found.tokens)


def test_what_does_not_fit_is_refused() -> None:
    model = model_for("llama", VOCAB, positions=9)
    assert write(model, PROMPTS, uniforms([1, 2, 3, 4], 1, 3), end=END).shape == (4, 3)
    with pytest.raises(UserError, match="prompts of up to 6 tokens and 4 new ones are more than the 9"):
        write(model, PROMPTS, uniforms([1, 2, 3, 4], 1, 4), end=END)
    with pytest.raises(UserError, match="a prompt is empty"):
        write(model, [[4], []], uniforms([1, 2], 1, 2), end=END)
