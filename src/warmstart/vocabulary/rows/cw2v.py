"""CW2V: convex mixtures of old rows, learned from the target text by skip-gram."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.rows._mixture import Mixture
from warmstart.vocabulary.two_mixes import TwoMixes

if TYPE_CHECKING:
    import torch

_LONGEST = 4096  # tokens of a text whose pairs are held at a time


class Cw2vSettings(Settings):
    """Options of `cw2v`."""

    start: Literal["pieces", "uniform"] = "pieces"
    """Mixtures before training: the mean of the pieces of a token's text, or all source tokens alike."""
    rank: int = Field(default=64, ge=1)
    """Width between the two factors of the logits of a mixture. The paper has 1024."""
    window: int = Field(default=5, ge=1)
    """Tokens on each side that count as context."""
    negatives: int = Field(default=5, ge=1)
    """Negative samples per pair, drawn from the unigram distribution to the power of 3/4."""
    loss: Literal["each", "summed", "softmax"] = "each"
    """`each` negative has a log-sigmoid of its own, which is skip-gram. `summed`: one of the sum of all their
    products, as the released code for RoBERTa has it. `softmax`: no negatives, but the cross-entropy of the
    context among all tokens, as in the released code for LLaMA (there with `window: 1`); every new row is
    computed at every step, `batch` times the vocabulary's logits are in memory."""
    head: Literal["own", "input"] = "own"
    """Mixtures of an untied head: their own, or those of the input rows."""
    learning_rate: float = Field(default=5e-3, gt=0)
    """Of Adam, constant."""
    batch: int = Field(default=1024, ge=1)
    """Pairs per step."""
    pairs: int = Field(default=200_000, ge=0)
    """Pairs trained on in all; 0 leaves the start as it is. 1024 pairs with 1,000 different new tokens among
    them, over 32,000 source tokens of width 512, take 1.5 seconds of one core (0.6 in bfloat16)."""
    bf16: bool | None = None
    """Whether the large products of training are made in bfloat16; the rows of the start and the finished
    mixture are not. By default where the source matrix has more than 8 million numbers and the processor
    has instructions for it."""
    max_bytes: int = Field(default=5_000_000, ge=1)
    """UTF-8 bytes of text used at most; it is read again until all pairs are done."""
    top_k: int = Field(default=32, ge=1)
    """Source tokens kept in the mixture of a token, the largest weights, scaled to sum one."""


@initialisers.register(
    "cw2v",
    settings=Cw2vSettings,
    title="An Empirical Comparison of Vocabulary Expansion and Initialization Approaches for Language Models",
    arxiv="2407.05841",
    tags=("mix", "convex", "corpus"),
)
def cw2v(context: RowContext, settings: Cw2vSettings) -> RowMix:
    """`E_t[n] = sum_s A_ns E_s[s]`, `A = softmax(A_0 + A_1 A_2)` row by row, with A_1 and A_2 trained.

    Constrained Word2Vec: all rows of the source stay as they are, and the mixtures of new tokens are trained
    to predict the tokens around them (and to be predicted) in the target text, by skip-gram with negative
    samples. Since mixtures are convex, no new head row can ever be the unique arg-max: greedy output on the
    old vocabulary is unchanged. Their *mass* still counts: many new rows raise the loss of old text.

    `A_0` are the logits of the start and `A_1 A_2` begins at zero, so that training improves on the mean of
    pieces. The paper starts from factors uniform in 0..1, whose softmax is peaked on some 18 random tokens.
    Tokens that the text does not show keep their start; without pieces they are drawn from N(mu, sd).

    In an untied model centres are input rows and contexts and negatives head rows, and each place has
    mixtures of its own, A_in and A_out (`head: input`: the input's in both); a tied one has one.

    Differences from the released code: negatives one by one (`loss: summed` for theirs); rows of A are
    computed once per step (there, once per pair), only for the new tokens in it and in blocks of bounded
    size; the finished rows keep `top_k` sources, which moves them by the mass that is cut off. Its softmax
    (`loss: softmax`) is over the new vocabulary, there over the old one and the new tokens.

    Returns:
        Convex weights, `(V_target, V_source)`, at most `top_k` per row; others for an untied head.

    Raises:
        UserError: No text, or a text without any new token.
    """
    corpus = context.need("corpus", "cw2v")
    untied = context.head_rows is not None and settings.head == "own"
    mixture = Mixture.start(context, settings.start, settings.rank, own_head=untied, bf16=settings.bf16)
    stream = _Stream(context, settings, corpus)
    seen = stream.counts[mixture.ids] > 0
    if not seen.any():
        raise UserError(
            "the text shows none of the new tokens",
            where=getattr(corpus, "name", "corpus"),
            fix="give text in the language of the new tokenizer",
        )
    train(mixture, stream.batches(), settings)
    mixture.keep_start(np.flatnonzero(~seen))
    filled = seen | mixture.has_pieces
    mixes = [mixture.as_mix(context.shape, filled, settings.top_k, which) for which in range(1 + untied)]
    return TwoMixes.of(*mixes) if untied else mixes[0]


def train(mixture: Mixture, batches: Iterator[tuple[np.ndarray, ...]], settings: Cw2vSettings) -> list[float]:
    """Adam on the factors; returns the loss per pair of each step.

    Args:
        mixture: Changed in place.
        batches: Centres `(b,)`, contexts `(b,)` and negatives `(b, k)`, as target ids.
        settings: Loss and step size.
    """
    import torch

    optimizer = torch.optim.Adam(mixture.parameters, lr=settings.learning_rate)
    everything = np.union1d(mixture.ids, np.flatnonzero(mixture.source >= 0))
    losses = []
    for centre, around, negative in batches:
        if settings.loss == "softmax":
            middle, others = _both(mixture, centre, everything)
            goal = torch.from_numpy(np.searchsorted(everything, around))
            loss = torch.nn.functional.cross_entropy(middle @ others.T, goal)
        else:
            b, k = negative.shape
            middle, others = _both(mixture, centre, np.concatenate([around, negative.ravel()]))
            positive = (middle * others[:b]).sum(dim=1)
            against = (others[b:].view(b, k, -1) @ middle[:, :, None])[:, :, 0]
            loss = skipgram_loss(positive, against, settings.loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def _both(mixture: Mixture, centres: np.ndarray, others: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Input rows of the centres and head rows of the others; where these are one matrix, made at once."""
    if len(mixture.matrices) > 1:
        return mixture.rows(centres), mixture.rows(others, 1)
    rows = mixture.rows(np.concatenate([centres, others]))
    return rows[: len(centres)], rows[len(centres) :]


def skipgram_loss(
    positive: torch.Tensor, negative: torch.Tensor, how: Literal["each", "summed"] = "each"
) -> torch.Tensor:
    """Mean of `-log s(p) - sum_j log s(-n_j)` over pairs; `summed`: `-log s(p) - log s(-sum_j n_j)`.

    Args:
        positive: Products p of centre and context, `(b,)`.
        negative: Products n of centre and negatives, `(b, k)`.
        how: See above.
    """
    from torch.nn.functional import logsigmoid

    away = logsigmoid(-negative).sum(dim=1) if how == "each" else logsigmoid(-negative.sum(dim=1))
    return -(logsigmoid(positive) + away).mean()


class _Stream:
    """Pairs of tokens near each other, at least one of them new, with their negatives."""

    def __init__(self, context: RowContext, settings: Cw2vSettings, corpus: Any) -> None:
        self.settings, self._rng, size = settings, context.rng, context.shape[0]
        self._new = np.zeros(size, dtype=bool)
        self._new[context.wanted] = True
        usable = self._new.copy()
        usable[context.vocab.matched[:, 0]] = True
        self._texts = _encoded(context, corpus, settings.max_bytes, usable)
        self.counts = np.zeros(size, dtype=np.int64)
        for ids in self._texts:
            self.counts += np.bincount(ids, minlength=size)
        share = self.counts.astype(np.float64) ** 0.75
        self._cumulative = np.cumsum(share / max(share.sum(), 1e-300))

    def batches(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Centres, contexts and negatives until the pairs are used up; each pass has a new order of texts."""
        left, held = self.settings.pairs, np.empty((0, 2), dtype=np.int64)
        while left > 0:
            before = left
            for number in self._rng.permutation(len(self._texts)):
                held = np.concatenate([held, self._pairs(self._texts[number])])
                while left > 0 and len(held) >= min(self.settings.batch, left):
                    count = min(self.settings.batch, left)
                    part, held, left = held[:count], held[count:], left - count
                    yield part[:, 0], part[:, 1], self._negatives(count)
                if left <= 0:
                    return
            if left == before and not len(held):
                return  # new tokens stand alone in their texts

    def _pairs(self, ids: np.ndarray) -> np.ndarray:
        """(centre, context) `(n, 2)` within the window, in random order."""
        found = []
        for offset in range(1, min(self.settings.window, len(ids) - 1) + 1):
            left, right = ids[:-offset], ids[offset:]
            either = self._new[left] | self._new[right]
            forward = np.stack([left[either], right[either]], axis=1)
            found += [forward, forward[:, ::-1]]
        if not found:
            return np.empty((0, 2), dtype=np.int64)
        return self._rng.permutation(np.concatenate(found))

    def _negatives(self, count: int) -> np.ndarray:
        wanted = 0 if self.settings.loss == "softmax" else self.settings.negatives
        drawn = self._rng.random((count, wanted))
        places = np.searchsorted(self._cumulative, drawn, side="right")
        return np.minimum(places, len(self._cumulative) - 1)


def _encoded(context: RowContext, corpus: Any, max_bytes: int, usable: np.ndarray) -> list[np.ndarray]:
    """Ids of each text without those that have no row to learn from; texts of one token are left out."""
    texts, left = [], max_bytes
    for document in corpus.documents("train"):
        texts.append(document.text)
        left -= len(document.text.encode())
        if left <= 0:
            break
    found = []
    for start in range(0, len(texts), 256):
        encoded = context.target_tokenizer(
            texts[start : start + 256], add_special_tokens=False, return_attention_mask=False, verbose=False
        )
        for ids in encoded["input_ids"]:
            array = np.array(ids, dtype=np.int64)
            array = array[usable[array]]
            found += [array[place : place + _LONGEST] for place in range(0, len(array), _LONGEST)]
    return [ids for ids in found if len(ids) > 1]


cw2v.contract_settings = {"pairs": 2000, "batch": 256}  # type: ignore[attr-defined]
