"""One text, cut by two tokenizers: which source tokens cover each target token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from transformers import PreTrainedTokenizerFast


def covering_counts(
    texts: Iterable[str],
    source_tokenizer: PreTrainedTokenizerFast,
    target_tokenizer: PreTrainedTokenizerFast,
    shape: tuple[int, int],
    *,
    batch: int = 256,
) -> csr_matrix:
    """How often, and with what share, each source token covers each target token.

    Every occurrence of a target token spreads one count evenly over the tuple of source tokens whose
    characters overlap its own, so that after normalisation row `t` is `sum_tuples freq(tuple) / freq(t) *
    mean(tuple)`: the Align initialisation of LowRes-CVE (Yamaguchi et al., arXiv 2406.11477). All occurrences
    in a text count (the released code keeps the last one of a repeated token), and no special token slips in
    (there, BOS at offset (0, 0) joins sentence-initial tuples).

    Args:
        texts: Documents or sentences.
        source_tokenizer: Fast tokenizer of the source.
        target_tokenizer: Fast tokenizer of the target.
        shape: `(V_target, V_source)`.
        batch: Texts tokenised at a time.

    Returns:
        Sparse counts of that shape, float64; row sums are occurrences of the target token.
    """
    from scipy.sparse import csr_matrix

    total = csr_matrix(shape, dtype=np.float64)
    pending: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    held: list[str] = []

    def flush() -> csr_matrix:
        sides = [_encode(tokenizer, held) for tokenizer in (source_tokenizer, target_tokenizer)]
        for (s_ids, s_spans), (t_ids, t_spans) in zip(*sides):
            pending.append(_cover(s_ids, s_spans, t_ids, t_spans))
        rows, columns, weights = (np.concatenate(part) for part in zip(*pending))
        pending.clear()
        held.clear()
        return total + csr_matrix((weights, (rows, columns)), shape=shape)

    for text in texts:
        held.append(text)
        if len(held) == batch:
            total = flush()
    return csr_matrix(flush() if held else total)


def _encode(tokenizer: Any, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    encoded = tokenizer(
        texts,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    return [
        (np.asarray(ids, dtype=np.int64), np.asarray(spans, dtype=np.int64).reshape(-1, 2))
        for ids, spans in zip(encoded["input_ids"], encoded["offset_mapping"])
    ]


def _cover(
    source_ids: np.ndarray, source_spans: np.ndarray, target_ids: np.ndarray, target_spans: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triplets (target id, source id, weight) of one text; tokens without characters are left out."""
    real = source_spans[:, 1] > source_spans[:, 0]
    source_ids, source_spans = source_ids[real], source_spans[real]
    real = target_spans[:, 1] > target_spans[:, 0]
    target_ids, target_spans = target_ids[real], target_spans[real]
    # starts and ends never decrease, since byte pieces of one character share its span
    first = np.searchsorted(source_spans[:, 1], target_spans[:, 0], side="right")
    last = np.searchsorted(source_spans[:, 0], target_spans[:, 1], side="left")
    size = np.maximum(last - first, 0)
    row = np.repeat(target_ids, size)
    offset = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
    column = source_ids[np.repeat(first, size) + offset]
    return row, column, np.repeat(1.0 / np.maximum(size, 1), size)
