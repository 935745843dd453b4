"""VocabMap: which source tokens a target token is, or is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.vocabulary.tokens import CanonicalToken, canonical_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from warmstart.vocabulary.pieces import Decomposer

_POSITIONAL = ("bos", "eos", "cls", "sep")
STAND_INS = {
    "bos": ("bos", "cls", "eos"),
    "eos": ("eos", "sep", "bos"),
    "cls": ("cls", "bos"),
    "sep": ("sep", "eos"),
}
"""Source roles that may stand for a target role, the best first (`cls` opens a sequence as `bos` does)."""


@dataclass
class VocabMap:
    """How a target vocabulary relates to a source vocabulary.

    Attributes:
        source: Canonical source tokens, index = id.
        target: Canonical target tokens, index = id.
        source_size: Number of source rows (at least the number of source tokens; checkpoints pad).
        target_size: Number of target rows.
        overlap: `(n, 2)` pairs (target id, source id) of tokens with equal bytes and equal word start.
            Where several source tokens qualify, one that is equally marked as continuation and as byte
            piece is preferred, then the lowest id (FOCUS's code takes the highest).
        fuzzy: `(k, 2)` further pairs equal up to case and surrounding space; empty unless asked for.
        roles: `(m, 2)` pairs of special tokens with the same role; additional ones with the same string.
    """

    source: list[CanonicalToken]
    target: list[CanonicalToken]
    source_size: int
    target_size: int
    overlap: np.ndarray
    fuzzy: np.ndarray
    roles: np.ndarray
    source_tokenizer: Any = field(repr=False, default=None)

    @classmethod
    def build(
        cls,
        source_tok: PreTrainedTokenizerFast,
        target_tok: PreTrainedTokenizerFast,
        *,
        source_size: int | None = None,
        target_size: int | None = None,
        fuzzy: bool = False,
    ) -> VocabMap:
        """Compare two tokenizers.

        Args:
            source_tok: Tokenizer whose rows exist.
            target_tok: Tokenizer whose rows are wanted.
            source_size: Rows of the source matrix, where it has more than the tokenizer has tokens.
            target_size: Rows of the target matrix, likewise.
            fuzzy: Also match tokens that differ only in case or surrounding space.
        """
        source, target = canonical_tokens(source_tok), canonical_tokens(target_tok)
        overlap = _exact(source, target)
        return cls(
            source=source,
            target=target,
            source_size=max(len(source), source_size or 0),
            target_size=max(len(target), target_size or 0),
            overlap=overlap,
            fuzzy=_fuzzy(source, target, overlap) if fuzzy else _pairs([]),
            roles=_roles(source, target),
            source_tokenizer=source_tok,
        )

    @cached_property
    def matched(self) -> np.ndarray:
        """`(n + k, 2)`: exact and, where asked for, fuzzy overlap."""
        return np.concatenate([self.overlap, self.fuzzy])

    @cached_property
    def text_ids(self) -> np.ndarray:
        """Target ids of tokens that stand for text (neither special nor unused)."""
        return np.array([t.id for t in self.target if t.role is None], dtype=np.int64)

    @cached_property
    def new(self) -> np.ndarray:
        """Target ids that neither overlap nor are special."""
        return np.setdiff1d(self.text_ids, self.matched[:, 0])

    @cached_property
    def unmatched_special(self) -> np.ndarray:
        """Target ids of special tokens that no source token plays, of unused ids and of padding rows."""
        special = [t.id for t in self.target if t.role is not None]
        padding = range(len(self.target), self.target_size)
        return np.setdiff1d(np.array([*special, *padding], dtype=np.int64), self.roles[:, 0])

    @cached_property
    def source_used(self) -> np.ndarray:
        """Source ids that a token uses: the rows over which means and deviations are meaningful."""
        return np.array([t.id for t in self.source if t.role != "unused"], dtype=np.int64)

    @cached_property
    def decomposer(self) -> Decomposer:
        """Cuts text into source tokens, the same way for every caller."""
        from warmstart.vocabulary.pieces import Decomposer

        return Decomposer(self.source_tokenizer, self.source)

    def pieces(self, target_id: int) -> list[int]:
        """Source ids of the *text* of a target token; empty where the source cannot write it.

        The text is encoded behind a sentinel which is then dropped, so that no stray space piece and no
        word-initial form appears. A continuation piece is cut into continuation pieces only. Bytes that
        are not UTF-8 are cut at byte level. Unknown pieces are left out.
        """
        return self._pieces[target_id]

    def pieces_all(self) -> list[list[int]]:
        """`pieces` of every target id, computed once in one batch."""
        return self._pieces

    @cached_property
    def _pieces(self) -> list[list[int]]:
        found = self.decomposer.batch(self.target)
        return found + [[] for _ in range(self.target_size - len(found))]


def _pairs(pairs: list[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _group(
    tokens: Iterable[CanonicalToken], key: Callable[[CanonicalToken], Any]
) -> dict[Any, list[CanonicalToken]]:
    groups: dict[Any, list[CanonicalToken]] = {}
    for token in tokens:
        if token.role is None:
            groups.setdefault(key(token), []).append(token)
    return groups


def _exact(source: list[CanonicalToken], target: list[CanonicalToken]) -> np.ndarray:
    groups = _group(source, lambda token: token.key)
    pairs = []
    for token in target:
        if token.role is None and (found := groups.get(token.key)):
            best = found[0]
            if len(found) > 1:
                best = min(
                    found, key=lambda s: (s.byte != token.byte, s.continuation != token.continuation, s.id)
                )
            pairs.append((token.id, best.id))
    return _pairs(pairs)


def _fuzzy(source: list[CanonicalToken], target: list[CanonicalToken], exact: np.ndarray) -> np.ndarray:
    def loose(token: CanonicalToken) -> str:
        return token.text.strip().casefold() if token.is_text else ""

    groups = _group(source, loose)
    done = set(exact[:, 0].tolist())
    pairs = []
    for token in target:
        key = loose(token)
        if token.role is None and key and token.id not in done and (found := groups.get(key)):
            best = min(found, key=lambda s: (s.starts_word != token.starts_word, s.text != token.text, s.id))
            pairs.append((token.id, best.id))
    return _pairs(pairs)


def _roles(source: list[CanonicalToken], target: list[CanonicalToken]) -> np.ndarray:
    by_role: dict[str, int] = {}
    for token in source:
        for role in token.roles:
            # an end token that stands in for a missing pad, unk or mask must not lend them its row
            if role in _POSITIONAL or role == token.role:
                by_role[role] = token.id
    by_string = {token.string: token.id for token in source if token.role not in (None, "unused")}
    pairs = []
    for token in target:
        if token.role in (None, "unused"):
            continue
        if token.role == "additional":
            choices = [by_string[token.string]] if token.string in by_string else []
        else:
            own = [by_role[role] for role in token.roles if role in by_role]
            near = [by_role[r] for role in token.roles for r in STAND_INS.get(role, ()) if r in by_role]
            choices = own + near
        if choices:
            pairs.append((token.id, choices[0]))
    return _pairs(pairs)
