"""Bits per UTF-8 byte: the one loss that can be compared between tokenizers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from warmstart.evaluation.words import chosen_words, word_spans
from warmstart.foundation.errors import UserError
from warmstart.foundation.tasks import Task

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from warmstart.evaluation.likelihood import Passage

_AT_ONCE = 256
"""Documents given to the tokenizer at a time."""


class BpbResult(BaseModel):
    """A measured likelihood."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    bpb: float
    """Bits per UTF-8 byte: `nats / ln 2 / bytes`."""
    nats: float
    """Summed negative log-likelihood."""
    bytes: int
    """UTF-8 bytes of what was predicted: the texts, or the chosen words of them."""
    tokens: int
    """Predicted tokens."""
    seconds: float
    """Wall-clock time."""
    documents: int
    """Texts read, empty ones left out."""
    unknown: int = 0
    """Tokens that are the unknown token, and chosen words without any token. Above zero the tokenizer does
    not represent all of the text and the figure is too good."""
    per_document: list[tuple[float, int]] | None = None
    """Nats and bytes of each document, if asked for."""


def bits_per_byte(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    task: Task,
    context_length: int,
    stride: int | None = None,
    batch_tokens: int = 4096,
    mask_fraction: float = 0.15,
    subsets: int = 1,
    seed: int = 0,
    max_bytes: int | None = None,
    bf16: bool = False,
    per_document: bool = False,
) -> BpbResult:
    """Bits per byte of `texts` under `model`. The batch size changes the speed only.

    **Causal**: `-log2 p(text | document start)` over the bytes of the texts. Each text starts anew after the
    document-start token (see `special.start_token`); longer ones slide through windows that overlap, so each
    token is predicted once. The end of a text is not predicted: it has no bytes.

    **Masked**: words are drawn on the text (`words.chosen_words`: the same for each tokenizer), all pieces of
    all drawn words are masked at once, each with one mask token, and their summed loss is divided by the
    bytes of the drawn words. This is no likelihood of the text: the pieces of a word do not see each other,
    and their number is given away. It compares models that read the same text with any tokenizer.

    **Encoder-decoder**: the drawn words are replaced by sentinels and their summed loss as the decoder writes
    them, sentinels and end included, is divided by the bytes of the words.

    Lone surrogates (invalid UTF-8 that was decoded leniently) become U+FFFD before tokenising and counting,
    so that bytes and tokens speak of the same text.

    Args:
        model: A transformers model of this task.
        tokenizer: Its tokenizer; masked and encoder-decoder models need a fast one (character offsets).
        texts: Documents.
        task: Which likelihood is meant.
        context_length: Positions that the model sees at once; never more than it can.
        stride: New tokens per window of a causal model; half the context if None. Smaller is slower and gives
            each token more context.
        batch_tokens: Positions per batch, padding included.
        mask_fraction: Share of the words drawn at a time (masked, encoder-decoder).
        subsets: How many disjoint draws are measured, up to `ceil(1 / mask_fraction)`, which is every word
            once.
        seed: Seed of the draw.
        max_bytes: Stop after this many UTF-8 bytes of text; the last text is cut.
        bf16: Run matrix products in bfloat16; the loss itself is always taken in float32 or better.
        per_document: Whether to return nats and bytes of each document.

    Raises:
        UserError: There is no text, or not a single word; the tokenizer lacks a token that the task needs.
    """
    from warmstart.evaluation.likelihood import document_losses, max_positions

    started = time.perf_counter()
    longest = max_positions(model)
    context = context_length if longest is None else min(context_length, longest)
    reader = _Reader(tokenizer, task, context, stride, mask_fraction, subsets, seed)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    nats, tokens = document_losses(
        model,
        reader.passages(limited(texts, max_bytes)),
        task=task,
        batch_tokens=batch_tokens,
        pad=int(pad),
        bf16=bf16,
    )
    total = sum(reader.bytes)
    if not total:
        raise UserError(
            "there is no text to measure" if not reader.bytes else "there is no word to measure in the text",
            fix="check the split and the text field of the corpus",
        )
    summed = math.fsum(nats.values())
    return BpbResult(
        bpb=summed / math.log(2) / total,
        nats=summed,
        bytes=total,
        tokens=tokens,
        seconds=time.perf_counter() - started,
        documents=len(reader.bytes),
        unknown=reader.unknown,
        per_document=[(nats.get(i, 0.0), size) for i, size in enumerate(reader.bytes)]
        if per_document
        else None,
    )


def limited(texts: Iterable[str], max_bytes: int | None = None) -> Iterator[str]:
    """Valid, non-empty texts up to `max_bytes` UTF-8 bytes in all; the last one is cut between characters."""
    left = math.inf if max_bytes is None else max_bytes
    for text in texts:
        try:
            data = text.encode()
        except UnicodeEncodeError:  # joins surrogate pairs, replaces lone ones
            data = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
        if len(data) > left:
            data = data[: int(left)]
        left -= len(data)
        if valid := data.decode("utf-8", "ignore"):
            yield valid
        if left <= 0:
            return


class _Reader:
    """Tokenises documents, counts their bytes and hands out their passages."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        task: str,
        context: int,
        stride: int | None,
        fraction: float,
        subsets: int,
        seed: int,
    ) -> None:
        from warmstart.evaluation.passages import Causal, Masked, Seq2Seq

        self.tokenizer, self.task = tokenizer, task
        self.fraction, self.subsets, self.seed = fraction, subsets, seed
        self.bytes: list[int] = []
        self.unknown = 0
        if task == "causal":
            self.causal = Causal(tokenizer, context, stride)
        elif task in ("masked", "seq2seq"):
            if not tokenizer.is_fast:
                raise UserError("the tokenizer is a slow one", fix="convert it to tokenizer.json")
            self.cutter: Masked | Seq2Seq = (Masked if task == "masked" else Seq2Seq)(tokenizer, context)
        else:
            raise UserError(f"unknown task {task!r}", fix="choose causal, masked or seq2seq")

    def passages(self, texts: Iterable[str]) -> Iterator[Passage]:
        """All passages, document by document."""
        stream = iter(texts)
        causal = self.task == "causal"
        while batch := list(islice(stream, _AT_ONCE)):
            encoded = self.tokenizer(
                batch,
                add_special_tokens=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                return_offsets_mapping=not causal,
                verbose=False,
            )
            for k, text in enumerate(batch):
                ids = encoded["input_ids"][k]
                self.unknown += ids.count(self.tokenizer.unk_token_id)
                if causal:
                    self.bytes.append(len(text.encode()))
                    yield from self.causal.cut(len(self.bytes) - 1, ids)
                else:
                    yield from self._words(text, ids, encoded["offset_mapping"][k])

    def _words(self, text: str, ids: list[int], offsets: list[tuple[int, int]]) -> Iterator[Passage]:
        from warmstart.evaluation.passages import belonging, continuing

        self.bytes.append(0)
        inside = continuing(offsets, word_spans(text))
        for subset in range(self.subsets):
            words = chosen_words(text, fraction=self.fraction, subset=subset, seed=self.seed)
            self.bytes[-1] += sum(len(text[begin:end].encode()) for begin, end in words)
            chosen, lost = belonging(text, offsets, words)
            self.unknown += lost
            yield from self.cutter.cut(len(self.bytes) - 1, ids, chosen, inside)
