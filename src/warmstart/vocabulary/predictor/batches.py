"""Texts cut by a freshly sampled tokenizer, with the pieces that the hypernetwork needs for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from warmstart.foundation.errors import UserError
from warmstart.training.order import DataOrder
from warmstart.vocabulary.predictor.decomposition import Pieces, SourcePieces
from warmstart.vocabulary.predictor.sampling import Noise, SampledVocabulary, TextPool

if TYPE_CHECKING:
    from warmstart.vocabulary.predictor.settings import HypernetworkSettings


@dataclass(frozen=True)
class Batch:
    """One step's sampled vocabulary and texts.

    Attributes:
        pieces: Source pieces of its n tokens.
        known: `(m, 2)` pairs (position of a token, source id) of tokens that the source has.
        ids: `(B, L)` positions of tokens, -1 where a text has ended.
        sizes: `(n,)` bytes of each token.
    """

    pieces: Pieces
    known: np.ndarray
    ids: np.ndarray
    sizes: np.ndarray


class Batches:
    """Batches by number; each depends on seed and number alone, so that a run can be continued.

    Args:
        texts: Documents, cut into passages of about `block_size` tokens.
        source: Cuts substrings into source tokens.
        settings: Sizes and noise.
        stream: Which of the seed's streams of random numbers is used.

    Raises:
        UserError: No text, or none that the source can write.
    """

    def __init__(
        self, texts: Iterable[str], source: SourcePieces, settings: HypernetworkSettings, *, stream: int
    ) -> None:
        self.source, self.settings, self.stream = source, settings, stream
        units = source.cut_bytes([bytes([i]) for i in range(256)])
        by_character = not all(units)
        listed = list(texts)
        if by_character:
            listed = writable(listed, source)
        elif source.marks_words:
            listed = [" " + text for text in listed]
        self.pool = TextPool.build(listed, by_character=by_character, passage=4 * settings.block_size)
        self._pieces: dict[int, list[int]] = {}
        self._allowed = np.ones(len(self.pool.substrings), dtype=bool)
        self._order = DataOrder(len(self.pool), settings.seed)
        base = source.cut_bytes(self.pool.base)
        # a lone space that the source cannot write stays unused: space and letter together are one unit
        stand_in = next((pieces for pieces in base if pieces), [0])
        self._pieces |= {entry: pieces or stand_in for entry, pieces in enumerate(base)}

    def make(self, number: int) -> Batch:
        """Batch `number`, from 0."""
        settings = self.settings
        size = min(settings.pool_size, len(self.pool))
        window = self._order.indices(number * settings.batch_size, size + settings.batch_size)
        texts = window[size:]
        drawn = self._vocabulary(window[settings.batch_size :], number)
        words = [self.pool.text(int(i))[: settings.block_size] for i in texts]  # a word has a token at least
        distinct = np.unique(np.concatenate(words))
        cut = dict(zip(distinct.tolist(), drawn.segment(self.pool, distinct), strict=True))
        ids = np.full((len(texts), settings.block_size), -1, dtype=np.int64)
        for row, text in enumerate(words):
            tokens = np.concatenate([cut[int(word)] for word in text])[: settings.block_size]
            ids[row, : len(tokens)] = tokens
        entries = drawn.entries.tolist()
        known = [(i, pieces[0]) for i, e in enumerate(entries) if len(pieces := self._pieces[e]) == 1]
        return Batch(
            Pieces.of([self._pieces[entry] for entry in entries]),
            np.array(known, dtype=np.int64).reshape(-1, 2),
            ids[:, : max(2, int((ids >= 0).sum(axis=1).max()))],
            np.array([len(self.pool.string(entry)) for entry in entries]),
        )

    def _vocabulary(self, texts: np.ndarray, number: int) -> SampledVocabulary:
        """The vocabulary of a batch, of substrings that the source can write."""
        settings, units = self.settings, len(self.pool.base)
        while True:
            drawn = SampledVocabulary.draw(
                self.pool,
                texts,
                settings.vocab_size,
                rng=np.random.default_rng([settings.seed, self.stream, number]),
                noise=Noise(settings.noise_scale, settings.noise_spread),
                allowed=self._allowed,
            )
            fresh = [entry for entry in drawn.entries.tolist() if entry not in self._pieces]
            cut = self.source.cut_bytes([self.pool.string(entry) for entry in fresh])
            self._pieces |= {entry: pieces for entry, pieces in zip(fresh, cut, strict=True) if pieces}
            unwritable = [entry - units for entry, pieces in zip(fresh, cut, strict=True) if not pieces]
            if not unwritable:
                return drawn
            self._allowed[unwritable] = False


def writable(texts: list[str], source: SourcePieces) -> list[str]:
    """Texts for a source without bytes: characters that it cannot write become spaces.

    Where it has no piece for a lone space (WordPiece), white space is one space and begins a word.

    Raises:
        UserError: Hardly any character can be written.
    """
    characters = sorted(set().union(*map(set, texts))) if texts else []
    cut = source.cut_bytes([character.encode("utf-8", "replace") for character in characters])
    lost = {ord(c): " " for c, pieces in zip(characters, cut, strict=True) if not pieces}
    visible = sum(len(text) - text.count(" ") for text in texts)
    spaced = [text.translate(lost) for text in texts]
    left = sum(len(text) - sum(map(text.count, " \t\n\r")) for text in spaced)
    if visible and left < visible / 2:
        raise UserError(
            f"the source can write only {left / visible:.0%} of the characters of the text",
            where="hypernetwork",
            fix="give text in the source's scripts, or use a source with bytes in its vocabulary",
        )
    if ord(" ") in lost or not source.cut_bytes([b" "])[0]:
        return [" " + " ".join(text.split()) for text in spaced]
    return [" " + text for text in spaced] if source.marks_words else spaced
