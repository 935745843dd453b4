"""Calls of tools in running text: are they made where they belong, and is it the right tool?

A tool is an output row of the model. It is called where its logit, plus a constant c that all tools share, is
the largest of all. The constant trades missed calls for needless ones; ToolkenGPT (arXiv 2305.11554) and its
followers tune it for each task, so a comparison has to choose it in the same way for every method: here on
held-out text of its own, among all values at which anything changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

_POSITIONS = 2048
"""Positions per batch, padding included."""


class ToolCallScores(BaseModel):
    """How well a model calls tools in text that it has not learned from."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    f1: float
    """Harmonic mean of precision and recall, of all calls together."""
    precision: float
    """Share of the calls made that are due, and of the right tool."""
    recall: float
    """Share of the calls due that are made, of the right tool."""
    constant: float
    """What is added to the logits of tools, chosen on other text than is reported."""
    plain_f1: float
    """The same harmonic mean with nothing added."""
    accuracy: float
    """Where a call of a trained tool is due: share in which it has the largest logit of all trained tools,
    averaged over tools."""
    calls: int
    """Calls of trained tools that are due."""
    trained_tools: int
    """Tools with a call in the training part."""
    zero_shot_accuracy: float | None = None
    """Where a call of a tool is due that was never trained: share in which it has the largest logit of all
    such tools, averaged over tools; one over their number by chance."""
    zero_shot_among_all: float | None = None
    """The same among all tools, trained ones too."""
    zero_shot_chance: float | None = None
    """One over the number of tools that were never trained."""
    zero_shot_calls: int = 0
    """Calls that are due of tools that were never trained."""


@dataclass(frozen=True)
class Decisions:
    """What a model has to decide between at N places of a text.

    Attributes:
        text: Largest logit of a token that is no tool, `(N,)`.
        tools: Logit of each tool, `(N, K)`.
        gold: Tool that is due, by its column; -1 where text goes on, `(N,)`.
    """

    text: np.ndarray
    tools: np.ndarray
    gold: np.ndarray

    def among(self, chosen: np.ndarray) -> Decisions:
        """The same with the tools `chosen`, `(K,)` bool, alone; places where another is due are left out."""
        number = np.where(chosen, np.cumsum(chosen) - 1, -2)
        gold = np.where(self.gold < 0, -1, number[self.gold])
        kept = gold > -2
        return Decisions(self.text[kept], self.tools[kept][:, chosen], gold[kept])


def decisions(
    model: nn.Module, blocks: Iterable[np.ndarray], tools: Sequence[int], *, bf16: bool = False
) -> Decisions:
    """Logits of text and tools at every place of blocks with a label.

    Args:
        model: A causal language model whose output rows hold the tools.
        blocks: Ids and labels, (2, L), filled up with -1; a label of -1 asks nothing (see
            `objectives.tool_rows.mark_calls`).
        tools: Ids of the tools, in the order of the columns.
        bf16: Whether matrix products run in bfloat16.

    Raises:
        UserError: There is no text.
    """
    import torch

    from warmstart.evaluation.likelihood import measuring

    device = next(model.parameters()).device
    order = torch.tensor(list(tools), device=device)
    parts: list[tuple[np.ndarray, ...]] = []
    with measuring(model, bf16=bf16):
        for ids, labels in _batches(blocks):
            goal = torch.from_numpy(labels[:, 1:].astype(np.int64)).to(device)
            where = goal >= 0
            given = torch.from_numpy(np.maximum(ids, 0).astype(np.int64)).to(device)
            logits = model(input_ids=given, use_cache=False).logits[:, :-1][where].float()
            own = logits[:, order]
            logits[:, order] = -math.inf
            match = goal[where][:, None] == order
            gold = torch.where(match.any(1), match.int().argmax(1), -1)
            parts.append(tuple(x.cpu().numpy() for x in (logits.amax(1), own, gold)))
    if not parts:
        raise UserError("there is no text with calls to measure", fix="check the corpus and its split")
    text, logits_of_tools, due = (np.concatenate(p) for p in zip(*parts))
    return Decisions(text, logits_of_tools, due)


def bits_per_call(model: nn.Module, blocks: Iterable[np.ndarray], tools: Sequence[int]) -> float:
    """Mean of `-log2 p(tool | text before the call)` over the calls of blocks, among all output rows.

    Raises:
        UserError: There is no call.
    """
    import torch

    from warmstart.evaluation.head import token_losses
    from warmstart.evaluation.likelihood import measuring

    device = next(model.parameters()).device
    nats, count = 0.0, 0
    with measuring(model):
        for ids, labels in _batches(blocks):
            goal = np.where(np.isin(labels, tools), labels, -100)[:, 1:].astype(np.int64)
            targets = np.pad(goal, ((0, 0), (0, 1)), constant_values=-100)
            given: Tensor = torch.from_numpy(np.maximum(ids, 0).astype(np.int64)).to(device)
            total, losses = token_losses(model, {"input_ids": given}, torch.from_numpy(targets).to(device))
            nats, count = nats + float(total), count + len(losses)
    if not count:
        raise UserError("no tool of the model is called in this text", fix="check the corpus and its split")
    return nats / math.log(2) / count


def best_constant(found: Decisions, constants: Sequence[float] = ()) -> float:
    """The constant with the highest F1; the smallest of equals.

    Args:
        found: Decisions on text that is not reported.
        constants: Values to choose from. By default all that make a difference: one between each two
            neighbouring gaps of text and best tool, found by one sort.
    """
    if len(constants):
        return max(sorted(constants), key=lambda c: scores(found, c)[0])
    gap = found.text.astype(np.float64) - found.tools.max(axis=1)
    right = found.tools.argmax(axis=1) == found.gold
    order = np.argsort(gap, kind="stable")
    gap, hits = gap[order], np.cumsum(right[order])
    f1 = 2 * hits / (np.arange(1, len(gap) + 1) + (found.gold >= 0).sum())
    f1[:-1][gap[1:] == gap[:-1]] = -1  # places of equal gap are called together
    best = int(np.argmax(f1))
    above = gap[best + 1] if best + 1 < len(gap) else gap[best] + 2
    return float(gap[best] + above) / 2


def scores(found: Decisions, constant: float) -> tuple[float, float, float]:
    """F1, precision and recall of calls with a constant added to all tools; 0 where nothing is called."""
    called = found.tools.max(axis=1) + np.float64(constant) > found.text
    hits = int((called & (found.tools.argmax(axis=1) == found.gold)).sum())
    made, due = int(called.sum()), int((found.gold >= 0).sum())
    return 2 * hits / max(made + due, 1), hits / max(made, 1), hits / max(due, 1)


def accuracy(found: Decisions, of: np.ndarray | None = None) -> float | None:
    """Share of due calls whose tool has the largest logit, averaged over the tools that are due.

    A logit that another tool reaches as well does not count.

    Args:
        found: Decisions.
        of: Average over these tools only, `(K,)` bool.
    """
    due = np.unique(found.gold[found.gold >= 0])
    due = due if of is None else due[of[due]]
    if not len(due):
        return None
    own = np.take_along_axis(found.tools, np.maximum(found.gold, 0)[:, None], axis=1)
    alone = (found.tools >= own).sum(axis=1) == 1
    return float(np.mean([alone[found.gold == tool].mean() for tool in due]))


def tool_call_scores(
    valid: Decisions, test: Decisions, trained: np.ndarray, constants: Sequence[float] = ()
) -> ToolCallScores:
    """All numbers, with the constant chosen on `valid`.

    F1 and accuracy concern the trained tools: the others are no candidates there, and places where they are
    due are left out.

    Args:
        valid: Decisions on text that chooses the constant.
        test: Decisions on text that is reported.
        trained: Which tools have been trained, `(K,)` bool.
        constants: Values that the constant is chosen from; by default all that make a difference.

    Raises:
        UserError: No trained tool is called in one of the texts.
    """
    choosing, reported = valid.among(trained), test.among(trained)
    for part, name in ((choosing, "valid"), (reported, "test")):
        if not (part.gold >= 0).any():
            raise UserError(f"no tool that was trained is called in the {name} part", where="tool-calls")
    constant = best_constant(choosing, constants)
    f1, precision, recall = scores(reported, constant)
    fresh = ~trained
    unseen = test.among(fresh) if fresh.any() else None
    zero_shot = accuracy(unseen) if unseen is not None else None
    return ToolCallScores(
        f1=f1,
        precision=precision,
        recall=recall,
        constant=constant,
        plain_f1=scores(reported, 0.0)[0],
        accuracy=accuracy(reported) or 0.0,
        calls=int((reported.gold >= 0).sum()),
        trained_tools=int(trained.sum()),
        zero_shot_accuracy=zero_shot,
        zero_shot_among_all=None if zero_shot is None else accuracy(test, fresh),
        zero_shot_chance=None if zero_shot is None else 1 / int(fresh.sum()),
        zero_shot_calls=0 if unseen is None else int((unseen.gold >= 0).sum()),
    )


def _batches(blocks: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and labels (B, L) of texts of similar length, cut to the longest."""
    held = sorted((np.asarray(block) for block in blocks), key=lambda b: int((b[0] >= 0).sum()))
    batch: list[np.ndarray] = []
    for block in held:
        length = int((block[0] >= 0).sum())
        if batch and (len(batch) + 1) * length > _POSITIONS:
            yield _joined(batch)
            batch = []
        batch.append(block)
    if batch:
        yield _joined(batch)


def _joined(batch: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    width = int((batch[-1][0] >= 0).sum())
    whole = np.stack([block[:, :width] for block in batch])
    return whole[:, 0], whole[:, 1]
