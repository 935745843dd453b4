"""Hard but learnable text: blocks of which a small model knows what is possible, but not what comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    import torch


class _Blocks(Protocol):
    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


def learnable_scores(
    model: torch.nn.Module, blocks: _Blocks, *, k: int = 10, rows: int = 8, bf16: bool = False
) -> np.ndarray:
    """Median loss in nats of those tokens of a block that a small model counts among its k likeliest.

    The selection of SALT-DS ("A Little Help Goes a Long Way: Efficient LLM Training by Leveraging Small LMs",
    arXiv 2410.18779): a high score says that the text is still hard although its tokens are plausible; tokens
    outside of the top k, which may be noise, do not count. The small model is best an early checkpoint. A
    token is among the k likeliest where fewer than k others have a larger logit; the median of an even number
    is the mean of the middle two.

    Args:
        model: A causal language model.
        blocks: Token ids (L,) each; ids below zero are padding at the end.
        k: How many tokens count as plausible.
        rows: Blocks per forward pass.
        bf16: Compute in bfloat16.

    Returns:
        (N,) float64; NaN for a block of which no token counts.
    """
    import torch

    from warmstart.evaluation.cross_entropy import chunk_size
    from warmstart.evaluation.head import head_inputs, head_logits
    from warmstart.evaluation.likelihood import measuring

    device = next(model.parameters()).device
    scores = np.full(len(blocks), np.nan)
    with measuring(model, bf16=bf16):
        for start in range(0, len(blocks), rows):
            several = range(start, min(start + rows, len(blocks)))
            ids = torch.from_numpy(np.stack([np.asarray(blocks[i]) for i in several]).astype(np.int64))
            ids = ids.to(device)
            goal = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-1)
            where = (goal.reshape(-1) >= 0).nonzero()[:, 0]
            head, states = head_inputs(model, {"input_ids": ids.clamp(min=0)}, where)
            width = states.shape[1] if head.linear is None else head.linear.out_features
            size = chunk_size(len(states), width)
            losses, known = [], []
            for part, token in zip(states.split(size), goal.reshape(-1)[where].split(size), strict=True):
                logits = head_logits(head, part)
                own = logits.gather(1, token[:, None])
                losses.append(logits.logsumexp(-1) - own[:, 0])
                known.append((logits > own).sum(-1) < k)
            if not losses:
                continue
            loss = torch.cat(losses).double().cpu().numpy()
            row = (where // ids.shape[1]).cpu().numpy()
            counts = torch.cat(known).cpu().numpy()
            for number, block in enumerate(several):
                kept = loss[(row == number) & counts]
                if len(kept):
                    scores[block] = np.median(kept)
    return scores


def most_learnable(scores: np.ndarray, fraction: float) -> np.ndarray:
    """Numbers of the blocks with the highest scores, ascending; the earlier one of equals.

    Args:
        scores: From `learnable_scores`.
        fraction: Share of all blocks that is kept (at least one), in (0, 1]; those without a score never are.

    Raises:
        UserError: The share is out of range, or no block has a score.
    """
    if not 0 < fraction <= 1:
        raise UserError(f"a share of {fraction} of the blocks cannot be kept", fix="give one in (0, 1]")
    if np.isnan(scores).all():
        raise UserError("no block has a token that the small model knows", fix="give a larger k")
    wanted = max(1, round(fraction * len(scores)))
    order = np.argsort(np.where(np.isnan(scores), np.inf, -scores), kind="stable")
    return np.sort(order[: min(wanted, int((~np.isnan(scores)).sum()))])
