"""Align: rows mixed by translation probabilities from parallel sentences, or from one text cut twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.alignment.covering import covering_counts
from warmstart.vocabulary.alignment.ibm import Symmetrise, TranslationTable, translation_table
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class AlignSettings(Settings):
    """Options of `align`."""

    evidence: Literal["auto", "parallel", "same-text"] = "auto"
    """`parallel`: sentence pairs, for another language. `same-text`: the target text cut by both tokenizers,
    for another tokenizer of the same language. `auto`: parallel where given."""
    iterations: int = Field(default=8, ge=1)
    """Passes of expectation maximisation over the sentence pairs."""
    symmetrise: Symmetrise = "product"
    """`product` multiplies the link probabilities of both directions; `none` uses one direction."""
    diagonal: float = Field(default=4.0, ge=0)
    """How strongly links prefer equal relative positions (fast_align's tension); 0 for plain IBM model 1."""
    null_probability: float = Field(default=0.08, gt=0, lt=1)
    """Prior probability that a token has no counterpart."""
    top_k: int = Field(default=10, ge=1)
    """Most source tokens in one row."""
    min_probability: float = Field(default=0.02, ge=0, lt=1)
    """Less probable source tokens are left out of a row."""
    min_count: float = Field(default=1.0, ge=0)
    """Tokens with less evidence than so many expected links count as unseen."""
    unseen: Literal["pieces", "normal"] = "pieces"
    """Rows without evidence: overlapping tokens are copied; others are the mean of the pieces of their text,
    or drawn from N(mu, sd)."""
    max_links: int = Field(default=40_000_000, ge=1)
    """Sentence pairs are read up to so many possible links (4 bytes of memory each, and 40 for each distinct
    pair of tokens)."""
    max_bytes: int = Field(default=20_000_000, ge=1)
    """Text read for `same-text`."""


@initialisers.register(
    "align",
    settings=AlignSettings,
    title="Vocabulary Expansion for Low-resource Cross-lingual Transfer",
    arxiv="2406.11477",
    tags=("mix", "convex", "all-rows", "parallel"),
)
def align(context: RowContext, settings: AlignSettings) -> RowMix:
    """`E_t[t] = sum_s p(s | t) E_s[s]`, with p from aligned tokens.

    With parallel sentences both sides are cut by their own tokenizers and p comes from IBM model 1 with a
    diagonal prior, see [`translation_table`][warmstart.vocabulary.alignment.ibm.translation_table]. With one
    text, p spreads each occurrence of t evenly over the source tokens that cover it, which is LowRes-CVE's
    Align (arXiv 2406.11477), see [`covering_counts`][warmstart.vocabulary.alignment.covering.covering_counts]
    for the two errors of its released code that are not repeated.

    Overlapping tokens are mixed as well where there is evidence, since equal strings of two languages are
    often false friends; `copy_overlap: true` copies them.

    Returns:
        Convex weights, `(V_target, V_source)`, at most `top_k` per row (`same-text`: likewise).

    Raises:
        UserError: Neither parallel sentences nor text.
    """
    counts = _counts(context, settings)
    probability = counts.probabilities(
        top_k=settings.top_k, min_probability=settings.min_probability, min_count=settings.min_count
    )
    entries = probability.tocoo()
    wanted = np.zeros(context.shape[0], dtype=bool)
    wanted[context.wanted] = True
    kept = wanted[entries.row]
    target, source, weight = [entries.row[kept]], [entries.col[kept]], [entries.data[kept]]
    wanted[np.unique(target[0])] = False
    overlap = context.vocab.matched
    overlap = overlap[wanted[overlap[:, 0]]]
    target.append(overlap[:, 0])
    source.append(overlap[:, 1])
    weight.append(np.ones(len(overlap)))
    wanted[overlap[:, 0]] = False
    if settings.unseen == "pieces":
        pieces = context.vocab.pieces_all()
        rest = [int(i) for i in np.flatnonzero(wanted) if pieces[i]]
        target.append(np.repeat(np.array(rest, dtype=np.int64), [len(pieces[i]) for i in rest]))
        source.append(np.array([p for i in rest for p in pieces[i]], dtype=np.int64))
        weight.append(np.ones(len(target[-1])))
    return RowMix.from_entries(
        context.shape, np.concatenate(target), np.concatenate(source), np.concatenate(weight)
    )


def _counts(context: RowContext, settings: AlignSettings) -> TranslationTable:
    parallel = settings.evidence == "parallel" or (
        settings.evidence == "auto" and context.parallel is not None
    )
    if parallel:
        pairs: list[tuple[str, str]] = context.need("parallel", "align")
        return translation_table(
            _encoded(pairs, context.source_tokenizer, context.target_tokenizer),
            context.shape[1],
            context.shape[0],
            iterations=settings.iterations,
            symmetrise=settings.symmetrise,
            diagonal=settings.diagonal,
            null_probability=settings.null_probability,
            max_links=settings.max_links,
        )
    if context.corpus is None:
        raise UserError(
            "the initialiser 'align' needs parallel sentences, or text of the target",
            fix="add parallel: … (another language) or corpus: … (same language) to the transplant settings",
        )

    def texts() -> Iterator[str]:
        left = settings.max_bytes
        for document in context.corpus.documents("train"):  # type: ignore[union-attr]
            if left <= 0:
                return
            left -= len(document.text.encode())
            yield document.text

    matrix = covering_counts(texts(), context.source_tokenizer, context.target_tokenizer, context.shape)
    return TranslationTable(matrix, 0)


def _encoded(
    pairs: list[tuple[str, str]], source: PreTrainedTokenizerFast, target: PreTrainedTokenizerFast
) -> Iterator[tuple[list[int], list[int]]]:
    for start in range(0, len(pairs), 1024):
        part = pairs[start : start + 1024]
        sides = [
            tokenizer(
                [pair[side] for pair in part],
                add_special_tokens=False,
                return_attention_mask=False,
                verbose=False,
            )["input_ids"]
            for side, tokenizer in enumerate((source, target))
        ]
        yield from zip(*sides)
