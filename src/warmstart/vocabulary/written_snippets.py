"""Snippets that the source model writes itself, for new tokens that the text hardly holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from warmstart.foundation.settings import digest
from warmstart.vocabulary.snippets import Miner, Snippets

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from warmstart.vocabulary.aligning import Alignment
    from warmstart.vocabulary.map import VocabMap


def sample_snippets(
    model: PreTrainedModel,
    vocab: VocabMap,
    alignment: Alignment,
    missing: Mapping[int, int],
    *,
    length: int = 50,
    start: tuple[int, int] | None = None,
    seed: int = 0,
) -> Snippets:
    """Snippets of text that the source model writes itself, behind the pieces of each new token.

    For tokens that the corpus hardly holds: the text after the token is what the model would say there, which
    is what distillation asks about; that before it is empty. Sampling is from the full distribution.

    Args:
        model: Source model, causal.
        vocab: Tells the pieces.
        alignment: Cuts the text twice.
        missing: New token to number of snippets; those without pieces get none.
        length: As in [`mine_snippets`][warmstart.vocabulary.snippets.mine_snippets].
        start: As there.
        seed: Of the sampling.
    """
    import torch

    head = [] if start is None else [start[0]]
    prompts = [
        (index, [*head, *vocab.pieces(index)])
        for index, count in sorted(missing.items())
        if 0 < len(vocab.pieces(index)) < length - len(head)
        for _ in range(count)
    ]
    miner = Miner(list(missing), 0, length, start)
    rng = torch.Generator(device=model.device).manual_seed(seed)
    for size in sorted({len(prompt) for _, prompt in prompts}):
        equal = [(index, prompt) for index, prompt in prompts if len(prompt) == size]
        for first in range(0, len(equal), 64):
            part = equal[first : first + 64]
            ids = torch.tensor([prompt for _, prompt in part], device=model.device)
            written = _continued(model, ids, length, len(vocab.source), rng)
            for (index, _), row in zip(part, written.tolist()):
                miner.want(index)
                miner.add(alignment.ids([row[len(head) :]]), index)
    return miner.snippets(digest([sorted(missing.items()), length, start, seed]))


def _continued(model: Any, ids: Any, length: int, tokens: int, rng: Any) -> Any:
    """`ids` (B, k) continued to (B, length) by sampling."""
    import torch

    state = None
    fed = ids
    with torch.no_grad():
        while ids.shape[1] < length:
            found = model(input_ids=fed, past_key_values=state, use_cache=True)
            state = found.past_key_values
            chances = found.logits[:, -1, :tokens].float().softmax(-1)
            fed = torch.multinomial(chances, 1, generator=rng)
            ids = torch.cat([ids, fed], dim=1)
    return ids
