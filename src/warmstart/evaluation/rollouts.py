"""What a causal model answers when it writes itself: how often right, how long, and how far from another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from warmstart.evaluation.reward import Graded, ResultReward
from warmstart.evaluation.special import end_token
from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


class AnsweringSettings(Settings):
    """How a model answers, and what its answers earn."""

    max_new_tokens: int = Field(default=64, ge=1)
    """Tokens of an answer at most, its end included."""
    temperature: float = Field(default=1.0, gt=0)
    """Divides the logits of which answers are drawn."""
    marker_of_result: str = Field(default="The answer is", min_length=1)
    """What stands in front of the final result of an answer, which goes from the last one to the end."""
    format_weight: float = Field(default=0.1, ge=0)
    """What an answer earns for ending with a readable result, right or wrong; a right result earns 1."""

    def reward(self) -> ResultReward:
        """What marks answers."""
        return ResultReward(self.marker_of_result, self.format_weight)


class Rollouts(BaseModel):
    """What a model's own answers are worth, one to each prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    reward: float
    """Mean reward."""
    accuracy: float
    """Share of answers with the right final result."""
    length: float
    """Mean tokens of an answer, its end included."""
    ended: float
    """Share of answers that end within the limit."""
    kl: float
    """Nats by which the model is apart from another one over an answer: the mean of the sum over its places
    of `KL(model || other)`; 0 without another one."""
    answers: int
    """How many there were."""


def rollouts(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: np.ndarray,
    settings: AnsweringSettings,
    *,
    seed: int = 0,
    other: Any = None,
    batch_size: int = 64,
    bf16: bool = False,
) -> Rollouts:
    """Let a model answer held-out prompts, once each.

    The random numbers of a prompt come from `seed` and its place: two models, or one at two moments, answer
    with the same ones, and what differs is the model.

    Args:
        model: A causal model.
        tokenizer: Its tokenizer.
        rows: `(N, 2, L)` token ids, and those that are asked for; both filled up with -1.
        settings: How it answers.
        seed: Of the sampling.
        other: Model from which the distance is measured.
        batch_size: Prompts at a time.
        bf16: Whether matrix products run in bfloat16.
    """
    from warmstart.evaluation.likelihood import measuring
    from warmstart.evaluation.sampling import answered, uniforms, write

    prompts, golds = prompts_of(rows, tokenizer)
    end, reward = end_token(tokenizer), settings.reward()
    order = sorted(range(len(rows)), key=lambda i: len(prompts[i]))
    marks: list[Graded] = []
    length = ended = apart = 0.0
    with measuring(model, bf16=bf16):
        for start in range(0, len(rows), batch_size):
            part = order[start : start + batch_size]
            asked = [prompts[i] for i in part]
            draws = uniforms([_seed(seed, i) for i in part], 1, settings.max_new_tokens)
            options = {"tokens": len(tokenizer), "temperature": settings.temperature}
            found = write(model, asked, draws, end=end, **options)
            marks += grade(found, [golds[i] for i in part], tokenizer, end, reward)
            length += float((found >= 0).sum())
            ended += float((found == end).any(-1).sum())
            if other is not None:
                with measuring(other, bf16=bf16):
                    apart += _apart(model, other, answered(asked, found), settings, len(tokenizer))
    number = len(rows)
    return Rollouts(
        reward=sum(mark.reward for mark in marks) / number,
        accuracy=sum(mark.correct for mark in marks) / number,
        length=length / number,
        ended=ended / number,
        kl=apart / number,
        answers=number,
    )


def prompts_of(rows: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> tuple[list[list[int]], list[str]]:
    """What stands in front of each answer, as token ids, and the answer as text, without its end.

    Args:
        rows: `(N, 2, L)`; an answer is what is asked for, from its first token on.
        tokenizer: Tells text.

    Raises:
        UserError: A row asks for nothing, or from its first token on, so that no prompt is left.
    """
    prompts, golds = [], []
    for ids, asked in rows:
        places = np.flatnonzero(asked >= 0)
        if not len(places) or places[0] == 0:
            raise UserError(
                "a text has no answer with a prompt in front of it", fix="train with the step train-policy"
            )
        prompts.append([int(i) for i in ids[: places[0]]])
        golds.append(str(tokenizer.decode(asked[places], skip_special_tokens=True)))
    return prompts, golds


def grade(
    written: Tensor,
    golds: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    end: int,
    reward: ResultReward,
) -> list[Graded]:
    """Marks of answers (R, T), filled up with -1; each of the N right answers belongs to R / N of them."""
    samples, marks = len(written) // len(golds), []
    for row, ids in enumerate(written.tolist()):
        kept = [i for i in ids if i >= 0]
        ended = bool(kept) and kept[-1] == end
        text = str(tokenizer.decode(kept, skip_special_tokens=True))
        try:
            marks.append(reward.grade(text, golds[row // samples], ended=ended))
        except ValueError:
            raise UserError(
                f"the answer {golds[row // samples]!r} has no result behind {reward.marker!r}",
                fix="set marker_of_result to what stands in front of the results",
            ) from None
    return marks


def _apart(model: Any, other: Any, rows: Any, settings: AnsweringSettings, tokens: int) -> float:
    """Sum over the places of all answers of `KL(model || other)`."""
    from warmstart.evaluation.head import head_inputs, head_logits

    total = 0.0
    heads = [head_inputs(one, {"input_ids": rows.ids}, rows.where) for one in (model, other)]
    for start in range(0, len(rows.where), 512):
        ours, theirs = (
            (head_logits(head, states[start : start + 512])[:, :tokens] / settings.temperature).log_softmax(
                -1
            )
            for head, states in heads
        )
        total += float((ours.exp() * (ours - theirs)).sum())
    return total


def _seed(seed: int, number: int) -> int:
    """Seed of a prompt's random numbers."""
    return int(np.random.default_rng([seed, number]).integers(2**63))
