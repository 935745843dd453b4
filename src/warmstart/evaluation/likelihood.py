"""Runs measured passages through a model in batches of similar length and adds up their losses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from warmstart.evaluation.head import token_losses, unwrap

if TYPE_CHECKING:
    from torch import Tensor, nn

_BUFFERED = 64
"""Batches' worth of passages that are held and sorted by length at a time."""


@dataclass(frozen=True)
class Passage:
    """One input of the model with what is measured on it.

    Attributes:
        document: Number of the document that the losses belong to.
        ids: Input ids (the encoder's, for an encoder-decoder).
        targets: What each position must predict, -100 where nothing is measured; for an encoder-decoder what
            the decoder must write, of its own length.
    """

    document: int
    ids: list[int]
    targets: list[int]


def document_losses(
    model: nn.Module,
    passages: Iterable[Passage],
    *,
    task: str,
    batch_tokens: int,
    pad: int,
    bf16: bool = False,
) -> tuple[dict[int, float], int]:
    """Summed loss in nats per document, and the number of targets.

    Batches are filled by length to at most `batch_tokens` positions, padding included (a longer passage goes
    alone). Padding never changes a loss: a causal model does not look ahead, others get an attention mask.
    """
    nats: dict[int, float] = {}
    count = 0
    device = next(model.parameters()).device
    with measuring(model, bf16=bf16):
        for batch in _batches(passages, batch_tokens):
            width = max(len(p.ids) for p in batch)
            ids = _padded([p.ids for p in batch], width, pad).to(device)
            inputs: dict[str, Any] = {"input_ids": ids}
            if task != "causal" and any(len(p.ids) != width for p in batch):
                inputs["attention_mask"] = _padded([[1] * len(p.ids) for p in batch], width, 0).to(device)
            length = max(len(p.targets) for p in batch)
            targets = _padded([p.targets for p in batch], length, -100).to(device)
            if task == "seq2seq":
                decoder = unwrap(model).prepare_decoder_input_ids_from_labels(targets)
                inputs["decoder_input_ids"] = decoder
            _, losses = token_losses(model, inputs, targets)
            rows = (targets != -100).nonzero()[:, 0].cpu().numpy()
            sums = np.bincount(rows, weights=losses.double().cpu().numpy(), minlength=len(batch))
            count += len(rows)
            for passage, value in zip(batch, sums):
                nats[passage.document] = nats.get(passage.document, 0.0) + float(value)
    return nats, count


@contextlib.contextmanager
def measuring(model: nn.Module, *, bf16: bool = False) -> Iterator[None]:
    """Evaluation mode without gradients, in bfloat16 if asked; the mode is restored afterwards."""
    device = next(model.parameters()).device.type
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            yield
    finally:
        model.train(training)


def max_positions(model: nn.Module) -> int | None:
    """Longest input that the model's position embeddings allow, None without a limit."""
    inner = unwrap(model)
    limit = getattr(inner.config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0 or inner.config.model_type in {"t5", "mt5", "umt5"}:
        return None
    for name, module in inner.named_modules():  # RoBERTa's positions start behind the padding index
        if (
            name.endswith("embeddings.position_embeddings")
            and getattr(module, "padding_idx", None) is not None
        ):
            return limit - int(module.padding_idx) - 1
    return limit


def _batches(passages: Iterable[Passage], batch_tokens: int) -> Iterator[list[Passage]]:
    stream = iter(passages)
    while held := list(_until(stream, _BUFFERED * batch_tokens)):
        held.sort(key=lambda p: (len(p.ids), len(p.targets)))
        batch: list[Passage] = []
        for passage in held:
            if batch and (len(batch) + 1) * len(passage.ids) > batch_tokens:
                yield batch
                batch = []
            batch.append(passage)
        yield batch


def _until(stream: Iterator[Passage], tokens: int) -> Iterator[Passage]:
    while tokens > 0 and (found := list(islice(stream, 1))):
        tokens -= len(found[0].ids)
        yield found[0]


def _padded(rows: list[list[int]], width: int, value: int) -> Tensor:
    array = np.full((len(rows), width), value, dtype=np.int64)
    for row, ids in zip(array, rows):
        row[: len(ids)] = ids
    return torch.from_numpy(array)
