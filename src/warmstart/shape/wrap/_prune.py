"""Unstructured pruning of a model: the smallest entries of its matrices become zeros."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from warmstart.anatomy import anatomy_of_model
from warmstart.checkpoint.forms._wrapped import LINEAR, places
from warmstart.checkpoint.forms.low_rank import LowRank
from warmstart.foundation.errors import UserError
from warmstart.shape.wrap._model import sample_outputs

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

By = Literal["weight", "update"]


def prune_model(model: PreTrainedModel, share: float, *, by: By = "weight") -> dict[str, float]:
    """Set the smallest entries of the linear maps of the blocks to zero, in place, over all of them.

    Of a map with a frozen matrix beside an update, `W = W_0 S_1 + s (U V + S)`, only W_0 is pruned, as in
    DSEE; its zeros stay, for it is frozen. Those maps and all others are two pools, of each of which `share`
    is pruned. Zeros in maps that are not wrapped stay as long as these do not learn.

    Args:
        model: A loaded model.
        share: Share of the entries to prune, in (0, 1).
        by: How entries of wrapped maps are ranked: by the whole matrix, or by the update alone, which is
            what DSEE's scripts do (there the whole matrix is an option that forgets the factor s).

    Returns:
        `pruned`, the share of zeros in the maps, and `output error`, the largest difference of the outputs
        on random tokens over the largest output.

    Raises:
        UserError: A model without linear maps in its blocks, wrapped ones without a frozen matrix, or
            updates that are all zero.
    """
    import torch

    outputs = sample_outputs(model)
    pools = _pools(model, by)
    if not any(pools):
        raise UserError("the model has no linear maps that could be pruned", where=type(model).__name__)
    zeros = total = 0
    with torch.no_grad():
        for pool in pools:
            for (matrix, _), chosen in zip(pool, _smallest([ranks for _, ranks in pool], share)):
                matrix.masked_fill_(chosen, 0.0)
                zeros += int((matrix == 0).sum())
                total += matrix.numel()
    change = (sample_outputs(model) - outputs).abs().max() / outputs.abs().max().clamp_min(1e-12)
    return {"pruned": zeros / total, "output error": float(change)}


def _pools(model: PreTrainedModel, by: By) -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """What is pruned and what ranks it: wrapped maps, and all others of the blocks."""
    wrapped: list[tuple[torch.Tensor, torch.Tensor]] = []
    for name, module in places(model):
        if not isinstance(module, LowRank) or module.base is None:
            raise UserError(
                "the map has no frozen matrix that could be pruned", where=name, fix="export the model first"
            )
        ranked = module.matrix() if by == "weight" else module.update()
        wrapped.append((module.base, ranked.detach().abs()))
    linear: dict[str, Any] = {f"{name}.weight": m for name, m in model.named_modules() if type(m) in LINEAR}
    if by == "update" and wrapped and not any(bool(ranks.any()) for _, ranks in wrapped):
        raise UserError("the updates are all zero and rank nothing", fix="train first, or prune by weight")
    others = [
        (linear[name].weight.data, linear[name].weight.detach().abs())
        for name, spec in anatomy_of_model(model).recognise(linear).items()
        if spec.layer is not None and spec.part in ("attention", "mlp")
    ]
    return [wrapped, others]


def _smallest(ranks: list[torch.Tensor], share: float) -> list[torch.Tensor]:
    """Where `share` of all entries lie that are the smallest; of equal ones as many as it takes."""
    import torch

    if not ranks:
        return []
    everything = torch.cat([rank.flatten() for rank in ranks])
    chosen = torch.zeros(len(everything), dtype=torch.bool, device=everything.device)
    chosen[everything.topk(round(share * len(everything)), largest=False).indices] = True
    parts = chosen.split([rank.numel() for rank in ranks])
    return [part.view_as(rank) for part, rank in zip(parts, ranks)]
