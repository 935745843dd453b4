"""The routers of a mixture of experts: their scores while they compute, whom they choose, and how evenly.

Shapes: N positions (rows times length), X experts of a layer, T experts per position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle


def routers(model: nn.Module) -> dict[str, tuple[nn.Module, int]]:
    """Name -> router, and where its scores stand in what it returns; empty for a dense model.

    Routers are what the model's own class names as such (`router_logits` among the outputs that it can
    record), in models whose configuration has `num_experts_per_tok`.
    """
    named = (getattr(model, "_can_record_outputs", None) or {}).get("router_logits")
    if named is None or getattr(getattr(model, "config", None), "num_experts_per_tok", None) is None:
        return {}
    found: dict[str, tuple[nn.Module, int]] = {}
    for recorder in named if isinstance(named, list | tuple) else [named]:
        for name, module in model.named_modules():
            if isinstance(module, recorder.target_class) and (recorder.layer_name or "") in name:
                found[name] = module, int(recorder.index)
    return found


def watch(model: nn.Module, see: Callable[[str, Tensor], None]) -> list[RemovableHandle]:
    """Call `see(name, scores)` with the scores `(N, X)` of each router, before softmax, when it computes.

    Returns:
        Handles; the watching ends when each is removed.
    """

    def hook(name: str, index: int) -> Callable[[nn.Module, Any, Any], None]:
        def seen(module: nn.Module, inputs: Any, output: Any) -> None:
            scores = output[index] if isinstance(output, tuple) else output
            see(name, scores.reshape(-1, scores.shape[-1]))

        return seen

    return [
        module.register_forward_hook(hook(name, index)) for name, (module, index) in routers(model).items()
    ]


def chosen(scores: Tensor, top: int, reading: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """How often each expert is chosen `(X,)`, and the sum of its shares among all experts `(X,)`.

    Args:
        scores: A router's scores, `(N, X)`.
        top: T.
        reading: Positions that count, `(N,)`; all by default.
    """
    shares = scores.double() if scores.dtype == torch.float64 else scores.float()
    shares = shares.softmax(dim=-1)
    places = shares.topk(top, dim=-1).indices
    weight = shares.new_ones(len(shares)) if reading is None else reading.to(shares)
    counts = shares.new_zeros(shares.shape[-1])
    counts.index_add_(0, places.flatten(), weight.repeat_interleave(top))
    return counts, (weight[:, None] * shares).sum(0)


def load_balance(scores: Sequence[Tensor], top: int, reading: Tensor | None = None) -> Tensor:
    """Load-balancing loss of a mixture, differentiable: T when its experts are used evenly, more otherwise.

        X * sum_x (times that expert x is chosen / n) * (mean share of expert x)

    over the n positions of all layers together, as `load_balancing_loss_func` of transformers has it (Switch
    Transformer, arXiv 2101.03961, equations 4 to 6). So layers that prefer different experts can make up for
    each other.

    Args:
        scores: Scores of each router, `(N, X)`.
        top: T.
        reading: Positions that count, `(N,)`; all by default.
    """
    found = [chosen(one, top, reading) for one in scores]
    counts, shares = (torch.stack(parts).sum(0) for parts in zip(*found, strict=True))
    positions = counts.sum() / top
    return len(counts) * (counts / positions * shares / positions).sum()
