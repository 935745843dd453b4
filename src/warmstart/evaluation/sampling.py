"""What causal models write behind prompts, many samples at a time, with random numbers that are given.

Each sample has its own uniform numbers, one per token, and takes the token at which the sum of probabilities
passes the number. So a sample depends on its prompt and its seed alone: neither on the samples beside it, nor
on how prompts are spread over batches, passes and processes, nor on the kind of device.

Shapes: N prompts, S samples of each, P tokens of the longest prompt, T new tokens at most, V rows of the
head.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from warmstart.evaluation.head import unwrap
from warmstart.evaluation.likelihood import max_positions
from warmstart.foundation.errors import UserError


def uniforms(seeds: Sequence[int], samples: int, length: int) -> Tensor:
    """Numbers in [0, 1), (N, S, T) float64, those of a prompt from its seed alone."""
    drawn = [
        torch.rand(samples, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in seeds
    ]
    return torch.stack(drawn)


@torch.compiler.disable
@torch.no_grad()
def write(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    draws: Tensor,
    *,
    end: int,
    tokens: int | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Continue prompts by sampling, up to the token `end`.

    Prompts are read once, padded on the left; their keys and values are then copied for each sample. Padding
    is masked and not counted in positions, so it changes nothing.

    Args:
        model: A causal model with a cache of keys and values, in the mode in which it is to be read.
        prompts: Token ids of each.
        draws: Uniform numbers (N, S, T).
        end: Token behind which nothing is written.
        tokens: Rows of the head that are tokens; the others are never written. All by default.
        temperature: Divides the logits.

    Returns:
        Token ids (N * S, T) with -1 behind the end; the samples of a prompt follow one another.

    Raises:
        UserError: A prompt and T new tokens are more than the model can read, or a prompt is empty.
    """
    inner = unwrap(model)
    device = next(inner.parameters()).device
    _, samples, length = draws.shape
    ids, mask = _padded_left(prompts, device)
    most = max_positions(inner)
    if most is not None and ids.shape[1] + length > most:
        raise UserError(
            f"prompts of up to {ids.shape[1]} tokens and {length} new ones are more than the {most} that the "
            "model can read",
            fix="give a lower max_new_tokens, or leave long prompts out by a shorter block_size",
        )
    known = inspect.signature(inner.forward).parameters
    options: dict[str, Any] = {"use_cache": True, "return_dict": True}
    if "logits_to_keep" in known:
        options["logits_to_keep"] = 1
    exact = torch.float32 if device.type == "mps" else torch.float64
    numbers = draws.reshape(-1, length).to(device, exact)  # (N S, T)
    open_ = torch.ones(len(numbers), dtype=torch.bool, device=device)
    written = torch.full((len(numbers), length), -1, dtype=torch.int64, device=device)
    cache, fed, places = None, ids, (mask.cumsum(-1) - 1).clamp(min=0)
    for step in range(length):
        given = {"position_ids": places} if "position_ids" in known else {}
        found = inner(input_ids=fed, attention_mask=mask, past_key_values=cache, **given, **options)
        cache, logits = found.past_key_values, found.logits[:, -1, :tokens]
        if step == 0:  # every sample goes its own way from here
            cache.batch_repeat_interleave(samples)
            logits, mask, places = (x.repeat_interleave(samples, 0) for x in (logits, mask, places[:, -1:]))
        chosen = _chosen(logits, numbers[:, step], temperature, exact)
        written[:, step] = chosen.masked_fill(~open_, -1)
        open_ = open_ & (chosen != end)
        if not open_.any():
            break
        fed, places = chosen[:, None], places + 1
        mask = torch.nn.functional.pad(mask, (0, 1), value=1)
    return written


def _padded_left(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, (N, P)."""
    width = max(map(len, prompts))
    if not all(map(len, prompts)):
        raise UserError("a prompt is empty, so there is nothing to continue")
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    return ids.to(device), mask.to(device)


def _chosen(logits: Tensor, numbers: Tensor, temperature: float, exact: torch.dtype) -> Tensor:
    """The token of each row at which the sum of probabilities passes the row's number, (N S,)."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    sums = (wide / temperature).softmax(-1).cumsum(-1, dtype=exact)
    total = sums[:, -1:]
    goal = torch.minimum(numbers[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(sums, goal, right=True)[:, 0]


class Answered(NamedTuple):
    """Prompts with an answer each, as a model reads them.

    Attributes:
        ids: (R, W) int64, filled up with 0 at the end.
        where: Places that predict a token of an answer, (K,): row times W plus place.
        tokens: These tokens, (K,).
        rows: The row of each, (K,).
    """

    ids: Tensor
    where: Tensor
    tokens: Tensor
    rows: Tensor


def answered(prompts: Sequence[Sequence[int]], answers: Tensor) -> Answered:
    """Put answers (R, T), filled up with -1, behind their prompts: N of them, or N for every R / N answers.

    Nothing stands in front, so a causal model needs no mask: it never looks at the padding at the end.
    """
    samples = len(answers) // len(prompts)
    counts = (answers >= 0).sum(-1)
    begins = torch.tensor([len(p) for p in prompts], device=answers.device).repeat_interleave(samples)
    width = int((begins + counts).max())
    ids = answers.new_zeros(len(answers), width)
    for row, prompt in enumerate(prompts):
        ids[row * samples : (row + 1) * samples, : len(prompt)] = answers.new_tensor(prompt)
    rows, places = (answers >= 0).nonzero(as_tuple=True)
    tokens, behind = answers[rows, places], begins[rows] + places
    ids[rows, behind] = tokens
    return Answered(ids, rows * width + behind - 1, tokens, rows)
