"""How evenly the experts of a mixture are used on a text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from pydantic import BaseModel
from torch import Tensor

from warmstart.evaluation.bits import limited
from warmstart.evaluation.routers import chosen, routers, watch
from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class ExpertUse(BaseModel):
    """How evenly the experts of a mixture are used on a text.

    `entropy` is that of the experts' loads over the logarithm of their number, a mean over layers: 1 when all
    are used alike. `lowest_entropy` is that of the least even layer. `unused` is the share of experts, over
    all layers, that were never chosen; `busiest` and `idlest` are the largest and smallest load of an expert
    relative to an even one, over all layers. `balance` is the load-balancing loss over T, 1 at best.
    `certainty` is the mean share of the likeliest expert. `loads` holds, per layer, what share of the
    choices each expert got.
    """

    entropy: float
    lowest_entropy: float
    unused: float
    busiest: float
    idlest: float
    balance: float
    certainty: float
    experts: int
    experts_per_token: int
    tokens: int
    loads: list[list[float]]


_DENSE = ExpertUse(
    entropy=1.0,
    lowest_entropy=1.0,
    unused=0.0,
    busiest=1.0,
    idlest=1.0,
    balance=1.0,
    certainty=1.0,
    experts=1,
    experts_per_token=1,
    tokens=0,
    loads=[],
)


@torch.no_grad()
def expert_use(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    context_length: int = 512,
    max_bytes: int | None = None,
    rows: int = 8,
) -> ExpertUse:
    """Run a mixture over texts and count whom its routers choose.

    A dense model is one expert that reads everything, evenly used; it is not run.

    Every text is cut into windows of `context_length` tokens, each read on its own; the padding of a batch
    does not count.

    Args:
        model: The mixture.
        tokenizer: Its tokenizer.
        texts: What is read.
        context_length: Tokens that the model sees at once, limited by its own maximum.
        max_bytes: UTF-8 bytes to read at most.
        rows: Windows per forward pass.

    Raises:
        UserError: There is no text.
    """
    names = list(routers(model))
    if not names:
        return _DENSE
    top = int(model.config.num_experts_per_tok)
    longest = min(context_length, getattr(model.config, "max_position_embeddings", None) or context_length)
    windows = []
    for text in limited(texts, max_bytes):
        ids = tokenizer(text, truncation=False, verbose=False)["input_ids"]
        windows += [ids[start : start + longest] for start in range(0, len(ids), longest)]
    windows = sorted((window for window in windows if window), key=len)
    sums: dict[str, list[Tensor]] = {}
    certain = torch.zeros((), dtype=torch.float64)
    reading = torch.zeros(0)

    def see(name: str, scores: Tensor) -> None:
        nonlocal certain
        found = torch.stack(chosen(scores, top, reading)).double().cpu()
        sums[name] = [sums[name][0] + found] if name in sums else [found]
        best = scores.float().softmax(-1).amax(-1).double()
        certain = certain + (best * reading.to(best)).sum().cpu() / len(names)

    handles, training, device = watch(model, see), model.training, model.device
    model.eval()
    try:
        for start in range(0, len(windows), rows):
            batch = windows[start : start + rows]
            width = len(batch[-1])
            ids = torch.tensor([window + [0] * (width - len(window)) for window in batch], device=device)
            lengths = torch.tensor([len(window) for window in batch], device=device)
            mask = torch.arange(width, device=device) < lengths[:, None]
            reading = mask.flatten()
            model.base_model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    tokens = sum(map(len, windows))
    if not tokens:
        raise UserError("there is no text for the experts to read")
    return _use([sums[name][0] for name in names], top, tokens, float(certain) / tokens)


def _use(sums: Sequence[Tensor], top: int, tokens: int, certainty: float) -> ExpertUse:
    """Numbers from the counts and summed shares `(2, X)` of each layer."""
    counts = torch.stack([one[0] for one in sums])
    loads = counts / counts.sum(1, keepdim=True)
    experts = loads.shape[1]
    entropies = torch.special.entr(loads).sum(1) / math.log(experts) if experts > 1 else loads.new_ones(1)
    shares = torch.stack([one[1] for one in sums]).sum(0) / (tokens * len(sums))
    return ExpertUse(
        entropy=float(entropies.mean()),
        lowest_entropy=float(entropies.min()),
        unused=float((counts == 0).double().mean()),
        busiest=float(loads.max() * experts),
        idlest=float(loads.min() * experts),
        balance=float(experts * (counts.sum(0) / counts.sum() * shares).sum()),
        certainty=certainty,
        experts=experts,
        experts_per_token=top,
        tokens=tokens,
        loads=loads.tolist(),
    )
