"""What a model's own answers are worth, against answers written one by one; and the numbers of a course."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny_language_models import model_for, tokenizer_for

from warmstart.evaluation.policy_course import CoursePoint, course_numbers
from warmstart.evaluation.rollouts import AnsweringSettings, Rollouts, prompts_of, rollouts
from warmstart.foundation.errors import UserError

LENGTH = 24


pytestmark = pytest.mark.usefixtures("one_thread")


def rows_of(texts: list[tuple[str, str]]) -> np.ndarray:
    """Ids and what is asked for; closed by the end of the text."""
    cut = tokenizer_for("llama")
    found = np.full((len(texts), 2, LENGTH), -1)
    for row, (front, back) in zip(found, texts, strict=True):
        head, answer = (cut(text, add_special_tokens=False)["input_ids"] for text in (front, back))
        ids = [*head, *answer, cut.eos_token_id]
        row[0, : len(ids)] = ids
        row[1, len(head) : len(ids)] = ids[len(head) :]
    return found


TEXTS = [(f"{a}+{b}", f"={a + b}") for a in range(3) for b in range(3)]


def taught() -> Any:
    """A model that has seen the answers, so that some of its own are right."""
    model, rows = model_for("llama", len(tokenizer_for("llama"))), rows_of(TEXTS)
    ids, asked = (torch.from_numpy(rows[:, i]) for i in (0, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(26):
        model(input_ids=ids.clamp(min=0), labels=asked.masked_fill(asked < 0, -100)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def test_numbers_are_those_of_the_answers_one_by_one() -> None:
    model, other = taught(), model_for("llama", len(tokenizer_for("llama")))
    settings = AnsweringSettings(max_new_tokens=5, marker_of_result="=", format_weight=0.5, temperature=0.8)
    cut, rows = tokenizer_for("llama"), rows_of(TEXTS)
    found = rollouts(model, cut, rows, settings, seed=3, other=other, batch_size=4)
    assert found == rollouts(model, cut, rows, settings, seed=3, other=other, batch_size=4)
    assert 0.1 < found.accuracy < 1, "some are right and some are wrong"
    totals = {"reward": 0.0, "accuracy": 0.0, "length": 0.0, "ended": 0.0, "kl": 0.0}
    for number, (front, back) in enumerate(TEXTS):
        prompt = cut(front, add_special_tokens=False)["input_ids"]
        seed = int(np.random.default_rng([3, number]).integers(2**63))
        draws = torch.rand(1, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)[0]
        ids: list[int] = []
        for draw in draws.tolist():
            with torch.no_grad():
                read = torch.tensor([prompt + ids])
                ours, theirs = (
                    (m(input_ids=read).logits[0, -1] / 0.8).log_softmax(-1) for m in (model, other)
                )
            totals["kl"] += float((ours.exp() * (ours - theirs)).sum())
            ids.append(int((ours.exp().cumsum(-1) > draw).nonzero()[0]))
            if ids[-1] == cut.eos_token_id:
                break
        ended = ids[-1] == cut.eos_token_id
        result = cut.decode(ids, skip_special_tokens=True).rpartition("=")
        right = result[1] == "=" and result[2].strip().removesuffix(".") == back[1:]
        readable = result[1] == "=" and result[2].strip().removesuffix(".").isdigit()
        totals["reward"] += right + 0.5 * (readable and ended)
        totals["accuracy"] += right
        totals["length"] += len(ids)
        totals["ended"] += ended
    for name, total in totals.items():
        assert getattr(found, name) == pytest.approx(total / len(TEXTS), rel=1e-6), name
    assert found.answers == len(TEXTS)
    alone = rollouts(model, cut, rows, settings, seed=3)
    assert alone == found.model_copy(update={"kl": 0.0})


def test_prompts_end_where_answers_begin() -> None:
    cut = tokenizer_for("llama")
    prompts, golds = prompts_of(rows_of([("one two", " =2"), ("x", "=7")]), cut)
    assert [cut.decode(p) for p in prompts] == ["one two", "x"] and golds == [" =2", "=7"]
    whole = rows_of([("one", "=2")])
    for asked in (whole[:, 0], np.full_like(whole[:, 0], -1)):
        with pytest.raises(UserError, match="no answer with a prompt"):
            prompts_of(np.stack([whole[:, 0], asked], 1), cut)


def course(*values: tuple[float, float]) -> list[CoursePoint]:
    """Points 10 steps apart, of reward and length."""
    return [
        CoursePoint(
            step=10 * i,
            tokens=100 * i,
            found=Rollouts(reward=r, accuracy=r, length=n, ended=1, kl=i / 10, answers=4),
        )
        for i, (r, n) in enumerate(values)
    ]


def test_a_dip_is_the_lowest_point_below_the_first() -> None:
    found = course_numbers(course((0.5, 20), (0.7, 22), (0.2, 5), (0.4, 8), (0.5, 9), (0.9, 30)))
    assert found.dip == pytest.approx(0.3) and found.steps_to_regain == 40 and found.regained == 1
    assert found.shortest_length == 0.25 and found.final_length == 1.5 and found.kl == 0.5


def test_a_rise_is_no_dip_and_a_fall_without_return_lasts_to_the_end() -> None:
    risen = course_numbers(course((0.5, 20), (0.5, 24), (0.8, 30)))
    assert (risen.dip, risen.steps_to_regain, risen.regained, risen.shortest_length) == (0, 0, 1, 1)
    fallen = course_numbers(course((0.5, 20), (0.6, 10), (0.4, 12)))
    assert fallen.dip == pytest.approx(0.1) and (fallen.steps_to_regain, fallen.regained) == (20, 0)
    assert fallen.shortest_length == 0.5 and fallen.final_length == 0.6
    nothing = course_numbers([])
    assert (nothing.dip, nothing.steps_to_regain, nothing.shortest_length, nothing.kl) == (0, 0, 1, 0)
