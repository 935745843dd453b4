"""A block for some tokens only: the others give it their keys and values, and are spared the rest.

The block's own code runs, on the chosen tokens, with a cache that hands it the keys and values of all. It
therefore fits every decoder whose attention keeps what it attends to in a transformers cache. What cannot be
run this way (masks of other kinds than the usual) is computed in full by the caller.

Shapes: B rows, L tokens, M the most that are chosen in a row, P keys in the cache before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor

_CACHES = ("past_key_values", "layer_past")


def can_gather(x: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether the arguments of a block are those that can be cut down to some of its tokens."""
    mask = kwargs.get("attention_mask")
    usual = mask is None or (isinstance(mask, Tensor) and mask.ndim == 4)
    return usual and not args and not torch.is_grad_enabled() and not _crossed(kwargs)


def _crossed(kwargs: Mapping[str, Any]) -> bool:
    return kwargs.get("encoder_hidden_states") is not None


def gathered(
    block: torch.nn.Module,
    forward: Callable[..., Tensor],
    x: Tensor,
    through: Tensor,
    kwargs: Mapping[str, Any],
) -> Tensor:
    """`where(through, Block(x), x)`, at the cost of the tokens that go through.

    Rows with fewer of them than others are filled up with a token whose result is thrown away.

    Args:
        block: The block, to find its projection of queries.
        forward: Its own `forward`.
        x: States, `(B, L, d)`.
        through: Which tokens go through, `(B, L)`.
        kwargs: The further arguments of `forward`, for all tokens.
    """
    counts = through.sum(1)
    most = int(counts.max())
    if bool(through.all()):
        return forward(x, **kwargs)
    key = next((name for name in _CACHES if name in kwargs), _cache_name(forward))
    cache = kwargs.get(key)
    past = int(cache.get_seq_length(_index(block))) if cache is not None else 0
    order = through.int().argsort(dim=1, descending=True, stable=True)  # those that go through come first
    idle = x.shape[1] - int(counts.min())
    rest = order[:, order.shape[1] - idle :]
    seen = _Seen()
    with ExitStack() as undo:
        _without_queries(block, undo)
        with suppress(_Stop):
            forward(_rows(x, rest), **{**_cut(kwargs, rest, x, past), key: seen})
    if not most:
        if cache is not None:
            cache.update(*_joined(seen, None, rest, None, x.shape[1]), seen.layer)
        return x
    chosen = order[:, :most]
    joint = _Joint(cache, seen, rest, chosen, x.shape[1])
    found = forward(_rows(x, chosen), **{**_cut(kwargs, chosen, x, past), key: joint})
    kept = torch.arange(most, device=x.device) < counts[:, None]
    found = torch.where(kept[..., None], found, _rows(x, chosen))
    return x.scatter(1, chosen[..., None].expand_as(found), found)


class _Stop(Exception):
    """Keys and values are known; nothing else is wanted."""


class _Seen:
    """Stands for a cache, and keeps the keys and values of the tokens that go around."""

    keys: Tensor
    values: Tensor
    layer: int

    def get_seq_length(self, *_: Any) -> int:
        return 0

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.keys, self.values, self.layer = keys, values, layer
        raise _Stop


class _Joint:
    """Stands for a cache: returns keys and values of all tokens, and hands them on to the real one."""

    def __init__(self, cache: Any, seen: _Seen, rest: Tensor, chosen: Tensor, length: int) -> None:
        self.cache, self.seen, self.rest, self.chosen, self.length = cache, seen, rest, chosen, length

    def get_seq_length(self, *args: Any) -> int:
        return int(self.cache.get_seq_length(*args)) if self.cache is not None else 0

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        both = _joined(self.seen, (keys, values), self.rest, self.chosen, self.length)
        return both if self.cache is None else self.cache.update(*both, layer)


def _joined(
    seen: _Seen, fresh: tuple[Tensor, Tensor] | None, rest: Tensor, chosen: Tensor | None, length: int
) -> tuple[Tensor, Tensor]:
    """Keys and values `(B, h, L, e)` of all tokens, each where it stands."""
    found = []
    for number, old in enumerate((seen.keys, seen.values)):
        whole = old.new_empty(*old.shape[:2], length, old.shape[-1])
        parts = [(rest, old)] if fresh is None or chosen is None else [(rest, old), (chosen, fresh[number])]
        for places, part in parts:  # a token that stands in both has the same in both
            whole.scatter_(2, places[:, None, :, None].expand_as(part), part)
        found.append(whole)
    return found[0], found[1]


def _rows(x: Tensor, places: Tensor) -> Tensor:
    """Tokens `(B, M, …)` of states `(B, L, …)`."""
    return x.gather(1, places.reshape(*places.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:]))


def _cut(kwargs: Mapping[str, Any], places: Tensor, x: Tensor, past: int) -> dict[str, Any]:
    """The arguments of a block for some tokens: positions, their rotation, and rows of the mask."""
    made = dict(kwargs)
    rows, length = x.shape[:2]
    if isinstance(ids := kwargs.get("position_ids"), Tensor):
        made["position_ids"] = _rows(ids.expand(rows, -1), places)
    if (rotation := kwargs.get("position_embeddings")) is not None:
        made["position_embeddings"] = tuple(_rows(part.expand(rows, -1, -1), places) for part in rotation)
    mask = kwargs.get("attention_mask")
    if mask is None:
        keys = torch.arange(past + length, device=x.device)
        made["attention_mask"] = (keys <= past + places[..., None])[:, None]
    else:
        full = mask.expand(rows, *mask.shape[1:])
        at = places[:, None, :, None].expand(-1, full.shape[1], -1, full.shape[-1])
        made["attention_mask"] = full.gather(2, at)
    return made


def _without_queries(block: torch.nn.Module, undo: ExitStack) -> None:
    """While keys and values are made, a projection of queries alone costs nothing (fused ones cannot be)."""
    for name, module in block.named_modules():
        if name.endswith("q_proj") and "forward" not in vars(module):
            size: Any = module.out_features
            vars(module)["forward"] = lambda x, size=size: x.new_zeros(()).expand(*x.shape[:-1], size)
            undo.callback(vars(module).pop, "forward")


def _cache_name(forward: Callable[..., Tensor]) -> str:
    import inspect

    accepted = inspect.signature(forward).parameters
    return next((name for name in _CACHES if name in accepted), _CACHES[0])


def _index(block: torch.nn.Module) -> int:
    """Number of the block in a cache."""
    found = (getattr(module, "layer_idx", None) for module in block.modules())
    return next(index for index in found if isinstance(index, int))
