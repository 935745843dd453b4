"""Distilling sentence vectors: a student learns to give a translation the vector of the original."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, model_validator

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


class DistilOptions(Settings):
    """How long and how fast sentence vectors are distilled. Exactly one of `max_steps`, `max_seconds`."""

    max_steps: int | None = Field(default=None, gt=0)
    """Budget in optimizer steps."""
    max_seconds: float | None = Field(default=None, gt=0)
    """Budget in seconds of training; the number of steps then depends on the machine."""
    batch_size: int = Field(default=64, ge=1)
    """Sentence pairs per step."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """Peak learning rate; it falls linearly to zero over the budget."""
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of the budget in which the rate rises."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's decoupled decay, on weight matrices of the body only."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients longer than this are shortened to it."""
    max_length: int = Field(default=64, ge=4)
    """Tokens per sentence at most."""
    bf16: bool = False
    """Compute in bfloat16 by autocast; weights stay float32."""
    seed: int = Field(default=0, ge=0)
    """Seed of the order of pairs and of dropout."""

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if self.max_steps is not None and self.max_seconds is not None:
            raise ValueError("only one budget can hold, but max_steps and max_seconds are given")
        return self


def distil(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: list[str],
    goals: np.ndarray,
    options: DistilOptions,
) -> dict[str, Any]:
    """Train a student's mean-pooled vectors towards given ones, in place.

    `loss = mean over the batch of |s/|s| - t/|t||^2 = 2 - 2 cos(s, t)`: the mean squared error of Reimers and
    Gurevych (Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation,
    arXiv 2004.09813) for teachers whose vectors are scaled to length one, as all-MiniLM's are; the paper
    leaves the lengths as they are. There the student also reads the original text; here its vocabulary
    belongs to the new language alone, so it reads the translation only.

    Args:
        student: An encoder; only its body is used, a head stays as it is.
        tokenizer: Its tokenizer.
        texts: Sentences that the student reads.
        goals: The teacher's vectors of their translations, `(n, d)`.
        options: Budget and rates.

    Returns:
        `steps`, `pairs` (seen, repeated ones counted), `seconds`, `loss` (mean of the last tenth).

    Raises:
        UserError: No budget, no pair, vectors of another width, or a loss that is not finite.
    """
    import torch

    from warmstart.evaluation.retrieval import padded, pooled

    if options.max_steps is None and options.max_seconds is None:
        raise UserError("distillation needs a budget", fix="give max_steps or max_seconds")
    width = int(student.config.hidden_size)
    if not texts or goals.shape != (len(texts), width):
        raise UserError(
            f"{len(texts)} sentences and a student of width {width} need as many vectors of that width, "
            f"got {goals.shape}",
            where="distillation",
        )
    encoded = tokenizer(texts, truncation=True, max_length=options.max_length, return_attention_mask=False)
    goal = torch.from_numpy(goals / np.maximum(np.linalg.norm(goals, axis=1, keepdims=True), 1e-12)).float()
    body = student.base_model
    optimizer = torch.optim.AdamW(_groups(body, options.weight_decay), lr=options.learning_rate)
    device = next(body.parameters()).device
    torch.manual_seed(options.seed)
    order = _endless(len(texts), options.batch_size, np.random.default_rng(options.seed))
    losses: list[float] = []
    started = time.perf_counter()
    student.train()
    while (done := _done(len(losses), time.perf_counter() - started, options)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * _shape(done, len(losses), options)
        part = next(order)
        inputs = padded(tokenizer, [encoded["input_ids"][i] for i in part])
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            vectors = pooled(student, inputs)
        unit = torch.nn.functional.normalize(vectors.float(), dim=1)
        loss = (unit - goal[part].to(device)).square().sum(dim=1).mean()
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss is not finite after {len(losses)} steps",
                where="distillation",
                fix="lower the learning rate",
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(body.parameters(), options.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    student.eval()
    last = losses[-max(1, len(losses) // 10) :]
    return {
        "steps": len(losses),
        "pairs": len(losses) * min(options.batch_size, len(texts)),
        "seconds": round(time.perf_counter() - started, 2),
        "loss": math.fsum(last) / len(last),
    }


def read_pairs(parallel: str, split: str, limit: int | None) -> tuple[list[str], list[str]]:
    """Both sides of parallel sentences, of which at most `limit` pairs are kept, chosen by hash."""
    from hashlib import blake2b

    from warmstart.corpus import open_pairs

    pairs = list(open_pairs(parallel, split))
    if limit is not None and limit < len(pairs):
        pairs.sort(key=lambda pair: blake2b("\t".join(pair).encode("utf-8", "replace")).digest())
        pairs = pairs[:limit]
    return [left for left, _ in pairs], [right for _, right in pairs]


def vectors_of(source: str | Path, texts: list[str], *, max_length: int, bf16: bool) -> np.ndarray:
    """Sentence vectors of a checkpoint's body."""
    from warmstart.checkpoint import resolve
    from warmstart.evaluation.retrieval import sentence_vectors

    checkpoint = resolve(source)
    model, tokenizer = checkpoint.load_model(), checkpoint.load_tokenizer()
    return sentence_vectors(model, tokenizer, texts, max_length=max_length, bf16=bf16)


def _groups(body: Any, decay: float) -> list[dict[str, Any]]:
    matrices: list[Any] = []
    others: list[Any] = []
    for name, parameter in body.named_parameters():
        body_matrix = parameter.dim() > 1 and "embeddings" not in name
        (matrices if body_matrix else others).append(parameter)
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _endless(count: int, size: int, rng: np.random.Generator) -> Any:
    """Batches of ids, each id once per pass; what is left over of a pass is not used."""
    size = min(size, count)
    while True:
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def _done(steps: int, seconds: float, options: DistilOptions) -> float:
    """Share of the budget that is spent."""
    if options.max_steps is not None:
        return steps / options.max_steps
    assert options.max_seconds is not None
    return seconds / options.max_seconds


def _shape(done: float, steps: int, options: DistilOptions) -> float:
    """Learning rate as a share of its peak."""
    if options.max_steps is not None:  # the first step must not have a rate of zero
        done = (steps + 0.5) / options.max_steps
    if done < options.warmup_ratio:
        return done / options.warmup_ratio
    return (1 - done) / (1 - options.warmup_ratio)
