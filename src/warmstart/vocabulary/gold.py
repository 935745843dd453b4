"""Gold rows: in a world with a known translation, the source row that each new token ought to have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.map import VocabMap
from warmstart.vocabulary.mix import RowMix
from warmstart.vocabulary.tokens import CanonicalToken

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from warmstart.checkpoint import Checkpoint


class GoldCosines(BaseModel):
    """How near a checkpoint's input rows are to the true ones: mean cosines over tokens whose true word is a
    single source token."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    tokens: int
    """Tokens compared."""
    cosine: float | None
    """Mean cosine of the rows as they are; none where no true word is a single token."""
    centred: float | None
    """The same with the source's mean row taken off."""
    hidden: float | None
    """The centred cosine over words that no dictionary has shown; none where there are none."""


@dataclass(frozen=True)
class GoldRows:
    """True rows of those target tokens whose meaning is known.

    Attributes:
        ids: `(n,)` target ids, ascending.
        words: The true word of each.
        weights: `(n, V_source)`, one row per id: a single 1 where the true word is one source token, else
            the mean over its pieces.
        single: `(n,)` bool: the true word is one source token.
    """

    ids: np.ndarray
    words: list[str]
    weights: csr_matrix
    single: np.ndarray

    def cosines(
        self, target_rows: np.ndarray, source_rows: np.ndarray, *, centred: bool = False
    ) -> np.ndarray:
        """Cosine of each token's row with its gold row, `(n,)` float64.

        Trained rows share a large mean component, so that even unrelated ones have a cosine well above zero;
        `centred` subtracts the source's mean row from both first. A row of length zero has cosine 0.

        Args:
            target_rows: Rows to judge, `(V_target, d)`.
            source_rows: Rows of the source, `(V_source, d)`.
            centred: Whether the mean source row is taken off.
        """
        if target_rows.shape[1] != source_rows.shape[1]:
            raise UserError(
                f"rows of {target_rows.shape[1]} numbers cannot be compared with rows of "
                f"{source_rows.shape[1]}"
            )
        middle = source_rows.mean(axis=0, dtype=np.float64) if centred else np.zeros(source_rows.shape[1])
        out = np.zeros(len(self.ids))
        for start in range(0, len(self.ids), 4096):
            part = slice(start, start + 4096)
            gold = self.weights[part] @ source_rows.astype(np.float64, copy=False) - middle
            found = target_rows[self.ids[part]].astype(np.float64) - middle
            scale = np.linalg.norm(gold, axis=1) * np.linalg.norm(found, axis=1)
            dots = np.einsum("ij,ij->i", gold, found)
            out[part] = np.divide(dots, scale, out=np.zeros_like(dots), where=scale > 0)
        return out


def gold_rows(vocab: VocabMap, meaning: Callable[[str], str | None]) -> GoldRows:
    """The gold rows of a vocabulary.

    Judged are target tokens that start a word and whose text is a whole word. The source cuts the true word
    as it does behind a space; where it is one token, that token's row is the truth; where it is several, the
    mean of their rows stands for it, which is no truth but the best row that can be named without training.

    Args:
        vocab: How the vocabularies relate.
        meaning: Text of a target token to its true word; None for what is no whole word.

    Raises:
        UserError: Not a single target token has a known meaning.
    """
    tokens, words = [], []
    for token in vocab.target:
        if token.is_text and token.starts_word and (word := meaning(token.text)):
            tokens.append(token.id)
            words.append(word)
    asked = [CanonicalToken(-1, word.encode(), starts_word=True, continuation=False) for word in words]
    pieces = vocab.decomposer.batch(asked)
    kept = [i for i, found in enumerate(pieces) if found]
    if not kept:
        raise UserError(
            "no token of the new vocabulary is a whole word of known meaning",
            where="gold rows",
            fix="make the vocabulary larger, or check that it was trained on the enciphered text",
        )
    counts = [len(pieces[i]) for i in kept]
    mix = RowMix.from_entries(
        (len(kept), vocab.source_size),
        np.repeat(np.arange(len(kept)), counts),
        [piece for i in kept for piece in pieces[i]],
    )
    return GoldRows(
        np.array([tokens[i] for i in kept], dtype=np.int64),
        [words[i] for i in kept],
        mix.weights,
        np.array(counts) == 1,
    )


def gold_cosines(
    made: Checkpoint,
    source: Checkpoint,
    meaning: Callable[[str], str | None],
    shown: Callable[[str], bool],
) -> GoldCosines:
    """Compare the input rows of a checkpoint with the gold rows.

    Args:
        made: Checkpoint to judge.
        source: Checkpoint whose rows are the truth.
        meaning: As for [`gold_rows`][warmstart.vocabulary.gold.gold_rows].
        shown: Whether a true word was in the dictionary that methods may see.

    Raises:
        UserError: As `gold_rows`, or rows of different widths.
    """
    from warmstart.vocabulary.factorised_model import input_rows

    rows = [input_rows(checkpoint.load_model()) for checkpoint in (source, made)]
    vocab = VocabMap.build(
        source.load_tokenizer(), made.load_tokenizer(), source_size=len(rows[0]), target_size=len(rows[1])
    )
    gold = gold_rows(vocab, meaning)
    plain, centred = (gold.cosines(rows[1], rows[0], centred=flag) for flag in (False, True))
    hidden = gold.single & ~np.array([shown(word) for word in gold.words])

    def mean(values: np.ndarray, chosen: np.ndarray) -> float | None:
        return float(values[chosen].mean()) if chosen.any() else None

    return GoldCosines(
        tokens=int(gold.single.sum()),
        cosine=mean(plain, gold.single),
        centred=mean(centred, gold.single),
        hidden=mean(centred, hidden),
    )
