"""Any byte string as tokens of the source: what a hypernetwork reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from warmstart.vocabulary.pieces import Decomposer
from warmstart.vocabulary.tokens import CanonicalToken, canonical_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Pieces:
    """Source ids of the pieces of n tokens.

    Attributes:
        flat: All ids, one token after the other.
        starts: `(n,)` where each token begins in `flat`.
        sizes: `(n,)` how many pieces it has, at least one.
    """

    flat: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Pieces:
        """From one list per token.

        Raises:
            ValueError: A token without pieces.
        """
        sizes = np.fromiter(map(len, lists), np.int64, len(lists))
        if len(sizes) and not sizes.min():
            raise ValueError("a token has no pieces")
        flat = np.fromiter((i for pieces in lists for i in pieces), np.int64, int(sizes.sum()))
        return cls(flat, np.cumsum(sizes) - sizes, sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def part(self, start: int, stop: int) -> Pieces:
        """Tokens `start` to `stop`."""
        starts, sizes = self.starts[start:stop], self.sizes[start:stop]
        begin = int(starts[0]) if len(starts) else 0
        return Pieces(self.flat[begin : begin + int(sizes.sum())], starts - begin, sizes)

    def take(self, tokens: np.ndarray) -> Pieces:
        """The tokens at these positions."""
        sizes = self.sizes[tokens]
        starts = np.cumsum(sizes) - sizes
        flat = self.flat[np.repeat(self.starts[tokens] - starts, sizes) + np.arange(int(sizes.sum()))]
        return Pieces(flat, starts, sizes)

    def padded(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """First `width` pieces of each token `(n, width)` int64, filled up with id 0, and which are real."""
        place = np.arange(min(width, int(self.sizes.max(initial=1))))
        real = place < self.sizes[:, None]
        return self.flat[np.where(real, self.starts[:, None] + place, 0)] * real, real


class SourcePieces:
    """Cuts tokens into source tokens; a token that the source has is its own only piece.

    All others are cut as by [`Decomposer`][warmstart.vocabulary.pieces.Decomposer]: without splitting into
    words first, inside running text, parts of characters at byte level.

    Args:
        tokenizer: Source tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokens = canonical_tokens(tokenizer)
        self._decomposer = Decomposer(tokenizer, self.tokens)
        self.known: dict[tuple[bytes, bool], int] = {}
        for token in sorted(self.tokens, key=lambda t: (t.byte, t.continuation, t.id)):
            if token.role is None:
                self.known.setdefault(token.key, token.id)

    @property
    def marks_words(self) -> bool:
        """Whether the first word of a text has the mark of a word start, as if a space preceded it."""
        return self._decomposer.style in ("metaspace", "wordpiece")

    def cut(self, tokens: Sequence[CanonicalToken]) -> list[list[int]]:
        """Source ids of each token; none where the source cannot write it."""
        found = [[self.known[t.key]] if t.role is None and t.key in self.known else [] for t in tokens]
        rest = [i for i, pieces in enumerate(found) if not pieces]
        for i, pieces in zip(rest, self._decomposer.batch([tokens[i] for i in rest]), strict=True):
            found[i] = pieces
        return found

    def cut_bytes(self, strings: Sequence[bytes]) -> list[list[int]]:
        """As `cut`, for byte strings; a space in front marks the start of a word."""
        return self.cut([CanonicalToken(0, s[s[:1] == b" " :], s[:1] == b" ", False) for s in strings])

    def apart(self, source_id: int) -> list[int]:
        """The fewest *other* source tokens that make up a source token; empty where there are none.

        Of several such decompositions the one with the longest first piece is taken.
        """
        token = self.tokens[source_id]
        if token.role is not None:
            return []
        text = b" " * token.starts_word + token.text_bytes
        best: list[tuple[int, int, int]] = [(0, 0, -1)] * (len(text) + 1)  # (pieces, end, id) from here on
        for start in range(len(text) - 1, -1, -1):
            choices: list[tuple[int, int, int]] = []
            for end in range(len(text), start, -1):
                index = self._part(text[start:end])
                if index is not None and index != source_id and best[end][2] != -2:
                    choices.append((best[end][0] + 1, -end, index))
            pieces, end, index = min(choices, default=(0, 0, -2))
            best[start] = (pieces, -end, index)
        found: list[int] = []
        at = 0
        while at < len(text):
            if best[at][2] < 0:
                return []
            found.append(best[at][2])
            at = best[at][1]
        return found

    def _part(self, data: bytes) -> int | None:
        word = data[:1] == b" "
        return self.known.get((data[word:], word))
