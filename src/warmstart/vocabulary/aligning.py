"""The same text cut by two tokenizers, and where the cuts agree.

Two ways give the second cut. *Merging* replaces, in the source's own token ids, every run that spells a new
token by that token: the text outside of new tokens is cut as the source model knows it, and every border of
the second cut is one of the first. It needs a target vocabulary that contains the source's. *Offsets* cut the
text with both tokenizers and compare characters: it works for any two, and the target is what the new model
will really read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from warmstart.vocabulary.map import VocabMap


@dataclass(frozen=True)
class Aligned:
    """Texts in two cuts, one text after the other; -1 stands behind each text.

    Attributes:
        source: Source ids, (n,).
        target: Target ids, (m,).
        ends: For each target token the number of entries of `source` before its end, where a source token
            ends there too; -1 where none does, and at the marks between texts. (m,)
    """

    source: np.ndarray
    target: np.ndarray
    ends: np.ndarray

    def borders(self) -> tuple[np.ndarray, np.ndarray]:
        """Places `(source, target)` at which both cuts have read the same text, ascending; starts included.

        Entry k of both says: the first `source[k]` and the first `target[k]` tokens are the same text.
        """
        opens = np.flatnonzero(self.target < 0)
        starts = np.concatenate([[0], np.flatnonzero(self.source < 0)[:-1] + 1])
        shared = np.flatnonzero(self.ends >= 0)
        source = np.concatenate([starts, self.ends[shared]])
        target = np.concatenate([np.concatenate([[0], opens[:-1] + 1]), shared + 1])
        order = np.lexsort((source, target))
        return source[order], target[order]


class Alignment(Protocol):
    """A way to cut texts twice."""

    fingerprint: str

    def texts(self, texts: Sequence[str]) -> Aligned:
        """Both cuts of `texts`."""

    def ids(self, rows: Sequence[Sequence[int]]) -> Aligned:
        """Both cuts of texts that are given as source ids."""


class Merging:
    """Source ids in which runs that spell a new token are replaced by it.

    Longest run first; of equally long ones the one that begins first; no token is used twice.

    Args:
        vocab: The map between the vocabularies.
        tokenizer: Source tokenizer.
        ids: New tokens to look for.

    Raises:
        UserError: A source token has no counterpart in the target.
    """

    def __init__(self, vocab: VocabMap, tokenizer: PreTrainedTokenizerFast, ids: Iterable[int]) -> None:
        self.own = own_ids(vocab)
        missing = [t.string for t in vocab.source if t.role is None and self.own[t.id] < 0]
        if missing:
            raise UserError(
                f"{len(missing):,} tokens of the old vocabulary are not in the new one, such as "
                f"{missing[0]!r}, so new tokens cannot be merged into old text",
                fix="use alignment: offsets",
            )
        self._backend = plain_backend(tokenizer)
        phrases: dict[tuple[int, ...], int] = {}
        for index in sorted(int(i) for i in ids):
            pieces = tuple(vocab.pieces(index))
            if len(pieces) > 1:
                phrases.setdefault(pieces, index)
        self.phrases = phrases
        self._trie = Trie(phrases)
        self.fingerprint = f"merging {sorted(phrases.items())}"

    def texts(self, texts: Sequence[str]) -> Aligned:
        """Both cuts of `texts`."""
        return self.ids(
            [e.ids for e in self._backend.encode_batch_fast(list(texts), add_special_tokens=False)]
        )

    def ids(self, rows: Sequence[Sequence[int]]) -> Aligned:
        """Both cuts of texts given as source ids."""
        source = np.array([i for row in rows for i in (*row, -1)], dtype=np.int64)
        target = np.where(source < 0, -1, self.own[np.maximum(source, 0)])
        ends = np.where(source < 0, -1, np.arange(1, len(source) + 1))
        kept = np.ones(len(source), dtype=bool)
        starts, lengths, found = self._trie.find(source)
        used = bytearray(len(source))
        for hit in np.lexsort((starts, -lengths)):
            start, length = int(starts[hit]), int(lengths[hit])
            if 1 in used[start : start + length]:
                continue
            used[start : start + length] = b"\1" * length
            target[start], ends[start] = found[hit], start + length
            kept[start + 1 : start + length] = False
        return Aligned(source, target[kept], ends[kept])


class Trie:
    """Finds all given runs of ids in an array, in as many array operations as the longest run is long.

    Args:
        phrases: Run to value.
    """

    def __init__(self, phrases: Mapping[tuple[int, ...], int]) -> None:
        nodes: dict[tuple[int, int], int] = {}
        value: dict[int, int] = {}
        for phrase, result in phrases.items():
            state = 0
            for index in phrase:
                state = nodes.setdefault((state, index), len(nodes) + 1)
            value[state] = result
        self._width = 1 + max((index for _, index in nodes), default=0)
        keys = np.array([state * self._width + index for state, index in nodes], dtype=np.int64)
        order = np.argsort(keys)
        self._keys, self._next = keys[order], np.array(list(nodes.values()), dtype=np.int64)[order]
        self._value = np.full(len(nodes) + 1, -1, dtype=np.int64)
        self._value[list(value)] = list(value.values())

    def find(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Start, length and value of every occurrence, overlapping ones too; negative ids match nothing."""
        place, state = np.arange(len(ids)), np.zeros(len(ids), dtype=np.int64)
        found: list[tuple[np.ndarray, ...]] = []
        length = 0
        while len(place) and len(self._keys):
            inside = place + length < len(ids)
            place, state = place[inside], state[inside]
            index = ids[place + length]
            key = state * self._width + index
            at = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
            known = (index >= 0) & (index < self._width) & (self._keys[at] == key)
            place, state = place[known], self._next[at[known]]
            length += 1
            value = self._value[state]
            ends = value >= 0
            found.append((place[ends], np.full(ends.sum(), length), value[ends]))
        columns = zip(*found) if found else ([np.empty(0, dtype=np.int64)],) * 3
        starts, lengths, values = (np.concatenate(list(column)) for column in columns)
        return starts, lengths, values


class Offsets:
    """Both tokenizers cut the text, and cuts at the same character agree.

    A cut inside a character (byte pieces) agrees with nothing. Offsets are taken untrimmed: byte-level
    tokenizers otherwise leave spaces out of them, and cuts before and after a space would look the same.

    Args:
        source: Old tokenizer.
        target: New tokenizer.
    """

    def __init__(self, source: PreTrainedTokenizerFast, target: PreTrainedTokenizerFast) -> None:
        from warmstart.vocabulary.transplant import tokenizer_digest

        self._tokenizer = source
        self._source, self._target = plain_backend(source), plain_backend(target)
        self.fingerprint = f"offsets {tokenizer_digest(target)}"

    def texts(self, texts: Sequence[str]) -> Aligned:
        """Both cuts of `texts`."""
        parts: list[tuple[list[int], list[int], np.ndarray]] = []
        base = 0
        for one, two in zip(
            self._source.encode_batch(list(texts), add_special_tokens=False),
            self._target.encode_batch(list(texts), add_special_tokens=False),
        ):
            ends = np.full(len(two.ids) + 1, -1, dtype=np.int64)
            (at, ours), (there, theirs) = _cuts(one.offsets), _cuts(two.offsets)
            _, i, j = np.intersect1d(at, there, assume_unique=True, return_indices=True)
            ends[theirs[j]] = base + ours[i] + 1
            parts.append(([*one.ids, -1], [*two.ids, -1], ends))
            base += len(one.ids) + 1
        ours, theirs = (np.array([i for part in parts for i in part[k]], dtype=np.int64) for k in (0, 1))
        ends = np.concatenate([part[2] for part in parts]) if parts else theirs
        return Aligned(ours, theirs, ends)

    def ids(self, rows: Sequence[Sequence[int]]) -> Aligned:
        """Both cuts of texts given as source ids, which are written out and cut anew."""
        return self.texts([str(self._tokenizer.decode(list(row), skip_special_tokens=True)) for row in rows])


def _cuts(offsets: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Characters before each clean cut, ascending, and the token that ends there (the last of several)."""
    spans = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    following = np.append(spans[1:, 0], np.iinfo(np.int64).max)
    clean = np.flatnonzero((spans[:, 1] <= following) & (spans[:, 1] > 0))
    reversed_ends, first = np.unique(spans[clean, 1][::-1], return_index=True)
    return reversed_ends, clean[::-1][first]


def own_ids(vocab: VocabMap) -> np.ndarray:
    """Target id of each source token, (V_source,); -1 where the target has no such token."""
    own = np.full(vocab.source_size, -1, dtype=np.int64)
    for pairs in (vocab.roles, vocab.overlap):
        own[pairs[::-1, 1]] = pairs[::-1, 0]  # the first of several pairs wins
    same = min(vocab.source_size, vocab.target_size)
    matched = np.concatenate([vocab.overlap, vocab.roles])
    equal = matched[matched[:, 0] == matched[:, 1], 1]
    own[equal[equal < same]] = equal[equal < same]
    return own


def fold_ids(vocab: VocabMap) -> np.ndarray:
    """Source id onto which each target id is folded, (V_target,): its own, or the first of its pieces.

    -1 for special tokens, padding rows, and tokens that the source cannot write.
    """
    fold = np.full(vocab.target_size, -1, dtype=np.int64)
    for index, pieces in enumerate(vocab.pieces_all()):
        if pieces:
            fold[index] = pieces[0]
    fold[vocab.matched[::-1, 0]] = vocab.matched[::-1, 1]
    special = [token.id for token in vocab.target if token.role is not None]
    fold[special] = -1
    return fold


def plain_backend(tokenizer: PreTrainedTokenizerFast) -> Any:
    """A copy of the tokenizer's backend that neither cuts off nor pads, trims no offsets, and reads the names
    of special tokens as text."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    _untrim(state)
    backend = Tokenizer.from_str(json.dumps(state))
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def _untrim(state: Any) -> None:
    if isinstance(state, dict):
        if "trim_offsets" in state:
            state["trim_offsets"] = False
        for key, value in state.items():
            if key != "model":
                _untrim(value)
    elif isinstance(state, list):
        for value in state:
            _untrim(value)


def align(
    vocab: VocabMap,
    source: PreTrainedTokenizerFast,
    target: PreTrainedTokenizerFast,
    ids: Iterable[int],
    kind: Literal["auto", "merge", "offsets"] = "auto",
) -> Alignment:
    """The alignment of two tokenizers; `auto` merges where the target contains the source's vocabulary."""
    if kind == "auto":
        own = own_ids(vocab)
        whole = all(own[token.id] >= 0 for token in vocab.source if token.role is None)
        kind = "merge" if whole else "offsets"
    return Merging(vocab, source, ids) if kind == "merge" else Offsets(source, target)
