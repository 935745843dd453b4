"""HyperOFA: rows written by a network from the vectors of the words in which a token stands."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.aux_space.bilingual import WordVectorSettings
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.predictor.bag_settings import BagNetworkSettings
from warmstart.vocabulary.predictor.bags import Bags, token_bags
from warmstart.vocabulary.predictor.word_vectors import Words, bilingual_words
from warmstart.vocabulary.rows._base import RowContext, initialisers


class HyperOfaSettings(WordVectorSettings):
    """Options of `hyper-ofa`."""

    network: BagNetworkSettings = BagNetworkSettings()
    """Size and training of the network."""
    own_language: bool = False
    """Whether a token's bag holds words of its own side only. As published all words of all languages count,
    however a tokenizer cuts them."""
    coordinates: int | None = Field(default=None, ge=1)
    """Write that many coordinates of a row in the singular directions of the source's rows instead of the
    row (paper: 100, 200 or 400, in a model with factorised embeddings; here they are multiplied out). Of a
    source with factorised rows the network writes the coordinates in any case."""


class BagMix(ComputedMix):
    """A mix whose report says how well the network did on held-out source tokens."""

    def report(self, rows: np.ndarray, filled: np.ndarray) -> dict[str, float | int | None]:
        """As in `RowMix`, with the number of bags learned from and the validation cosine."""
        return super().report(rows, filled) | getattr(self.compute, "measured", {})


@initialisers.register(
    "hyper-ofa",
    settings=HyperOfaSettings,
    title="HYPEROFA: Expanding LLM Vocabulary to New Languages via Hypernetwork-Based Embedding "
    "Initialization",
    arxiv="2504.21018",
    tags=("dense", "corpus", "bilingual"),
)
def hyper_ofa(context: RowContext, settings: HyperOfaSettings) -> RowMix:
    """`E_t[t] = HN(bag of t)`: a BiLSTM over the vectors of all words whose tokenisation contains t.

    Word vectors of both languages are brought into one space; the network learns from the source tokens that
    have a bag to write their rows, with the loss `0.1 L_con + 0.9 L_1`
    ([`bag_loss`][warmstart.vocabulary.predictor.bag_network.bag_loss]), and writes those of the new tokens.
    Overlapping rows are copied, tokens without a bag drawn from N(mu, sd). For an untied head a second
    network is trained.

    Differences from the released code: word vectors are the user's own, trained on the two texts or given in
    files, in place of ColexNet+; of its splits (97, 2.5 and 0.5 %) there is no test part; words are thinned
    in bags of more than four, as the report says (the code's default is ten); the validation cosine is
    reported with the rows, and was low in the paper (0.2 for XLM-R). The permutation-invariant variant that
    did worse there is left out.

    Returns:
        A mix whose new rows hold no weights but the network, `(V_target, V_source)`.

    Raises:
        UserError: No text or vectors, no anchors, or too few source tokens with a bag.
    """
    from warmstart.vocabulary.predictor.bag_network import BagRows

    words = bilingual_words(context, "hyper-ofa", settings)
    source = _bags(words, context, settings, "source")
    target = _bags(words, context, settings, "target")
    if (source.sizes > 0).sum() < 2:
        raise UserError(
            "no words with vectors contain tokens of the source",
            where="initialiser hyper-ofa",
            fix="give more text, lower training.min_count, or use mean-of-pieces",
        )
    known = context.wanted[target.sizes[context.wanted] > 0]
    rows = BagRows(words.vectors, source, target, settings.network, settings.coordinates, context.seed)
    return BagMix.of(context.shape, known, rows)


def _bags(words: Words, context: RowContext, settings: HyperOfaSettings, side: str) -> Bags:
    tokenizer = context.source_tokenizer if side == "source" else context.target_tokenizer
    if not settings.own_language:
        return token_bags(words.texts, tokenizer, settings.network.max_words)
    own = np.flatnonzero(words.of_source == (side == "source"))
    found = token_bags([words.texts[i] for i in own], tokenizer, settings.network.max_words)
    return Bags(own[found.flat], found.starts, found.sizes)


hyper_ofa.contract_settings = {  # type: ignore[attr-defined]
    "training": {"level": "word", "min_count": 1, "min_n": 0, "max_n": 0, "dim": 16, "epochs": 2},
    "network": {"hidden_size": 8, "epochs": 2},
}
