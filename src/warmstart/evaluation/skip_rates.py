"""How many tokens go through the blocks of a model with skip routers, and what that costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel

from warmstart.evaluation.bits import limited
from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class SkipRates(BaseModel):
    """What a text costs a model with skip routers.

    `density` is the share of tokens that go through a block, a mean over blocks, `lowest` and `highest` are
    those of single blocks, and `gap` is the mean distance of blocks from the density in the note. `rates` has
    the share of each block. `flops_share` is what the model computes, as torch counts it while it runs, over
    what it computes with every token going through every block; skipped tokens still give keys and values.
    """

    density: float
    lowest: float
    highest: float
    gap: float
    flops_share: float
    tokens: int
    rates: list[float]


@torch.no_grad()
def skip_rates(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    context_length: int = 512,
    max_bytes: int | None = None,
    counted: int = 8,
) -> SkipRates:
    """Run a model over texts, window by window, and count decisions and operations.

    A model without routers lets every token through.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        texts: What is read.
        context_length: Tokens that the model sees at once, limited by its own maximum.
        max_bytes: UTF-8 bytes to read at most.
        counted: Windows whose operations are counted, the first ones.

    Raises:
        UserError: There is no text.
    """
    from torch.utils.flop_counter import FlopCounterMode

    from warmstart.checkpoint.forms.skip import routers

    found = dict(routers(model))
    sums = dict.fromkeys(found, 0)
    longest = min(context_length, getattr(model.config, "max_position_embeddings", None) or context_length)
    tokens, flops, whole = 0, 0, 0
    attention, training = model.config._attn_implementation, model.training

    def see(name: str, output: Any) -> None:
        sums[name] += int(output[0].sum())

    handles = [r.register_forward_hook(lambda m, i, o, name=name: see(name, o)) for name, r in found.items()]
    model.eval()
    try:
        model.set_attn_implementation("eager")  # torch does not count its fused attention on CPUs
        for number, ids in enumerate(_windows(tokenizer, texts, longest, max_bytes)):
            batch = torch.tensor([ids], device=model.device)
            tokens += len(ids)
            if number >= counted:
                model(input_ids=batch, use_cache=False)
                continue
            with FlopCounterMode(display=False) as counter:
                model(input_ids=batch, use_cache=False)
            flops += counter.get_total_flops()
            before = dict(sums)
            with _everything_through(found.values()), FlopCounterMode(display=False) as counter:
                model(input_ids=batch, use_cache=False)
            whole += counter.get_total_flops()
            sums.update(before)
    finally:
        model.train(training)
        model.set_attn_implementation(attention)
        for handle in handles:
            handle.remove()
    if not tokens:
        raise UserError("there is no text to read")
    rates = [count / tokens for count in sums.values()] or [1.0]
    goal = next((float(router.options["density"]) for router in found.values()), 1.0)
    return SkipRates(
        density=sum(rates) / len(rates),
        lowest=min(rates),
        highest=max(rates),
        gap=sum(abs(rate - goal) for rate in rates) / len(rates),
        flops_share=flops / whole,
        tokens=tokens,
        rates=rates,
    )


def _windows(
    tokenizer: Any, texts: Iterable[str], longest: int, max_bytes: int | None
) -> Iterable[list[int]]:
    for text in limited(texts, max_bytes):
        ids = tokenizer(text, truncation=False, verbose=False)["input_ids"]
        yield from (ids[start : start + longest] for start in range(0, len(ids), longest))


class _everything_through:
    """Inside, routers compute their scores and decide for the block."""

    def __init__(self, routers: Iterable[Any]) -> None:
        self.routers = list(routers)

    def __enter__(self) -> None:
        def all_of(module: Any, inputs: Any, output: Any) -> Any:
            return torch.ones_like(output[0]), output[1]

        self.handles = [router.register_forward_hook(all_of) for router in self.routers]

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()
