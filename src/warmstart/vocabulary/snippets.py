"""Snippets: short windows of running text around new tokens, in the old and in the new cut.

What a new row must stand for shows in the contexts in which its token occurs. Dobler et al., "AweDist:
Attention-aware Embedding Distillation for New Input Token Embeddings" (arXiv 2505.20133), take 100 snippets
of 50 tokens for each new token from any text. Their code finds the tokens with an Aho-Corasick automaton over
ids; here a trie is walked for all places of a batch of text at once, with the same result.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.corpus.packing import BATCH_CHARACTERS
from warmstart.foundation.errors import UserError
from warmstart.foundation.files import atomic_folder, cache_home
from warmstart.foundation.progress import progress
from warmstart.foundation.settings import digest

if TYPE_CHECKING:
    from warmstart.corpus import Corpus, Document
    from warmstart.corpus.splitting import Split
    from warmstart.vocabulary.aligning import Aligned, Alignment

_VERSION = 1  # bump when the same inputs give other snippets
_CHOICE = 4  # windows looked at for each one that is wanted: some cannot be cut


@dataclass(frozen=True)
class Snippets:
    """Windows of text in two cuts; what training reads.

    Attributes:
        rows: `(N, 3, L)` int32: source ids, target ids, and for each target token the number of source tokens
            before its end where both cuts agree (else 0). Filled up with -1.
        tokens: `(N,)` new token for which the snippet was taken; it may hold others as well.
        fingerprint: Hash of what it was made from.
    """

    rows: np.ndarray
    tokens: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> np.ndarray:
        """One snippet, (3, L)."""
        return np.asarray(self.rows[index])

    def counts(self, ids: Iterable[int]) -> np.ndarray:
        """Number of snippets taken for each of `ids`."""
        wanted = np.asarray(list(ids), dtype=np.int64)
        size = 1 + max(wanted.max(initial=0), self.tokens.max(initial=0))
        return np.bincount(self.tokens, minlength=size)[wanted]

    def plus(self, other: Snippets) -> Snippets:
        """Both, these first."""
        return Snippets(
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.tokens, other.tokens]),
            digest([self.fingerprint, other.fingerprint]),
        )

    def target(self) -> TargetSnippets:
        """The new cut alone, for objectives that read one sequence."""
        return TargetSnippets(self)


@dataclass(frozen=True)
class TargetSnippets:
    """The new cut of snippets: blocks `(L,)` of target ids, filled up with -1."""

    snippets: Snippets

    @property
    def fingerprint(self) -> str:
        """Hash of what the snippets were made from."""
        return f"target of {self.snippets.fingerprint}"

    def __len__(self) -> int:
        return len(self.snippets)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.snippets[index][1]


def mine_snippets(
    corpus: Corpus,
    alignment: Alignment,
    ids: Iterable[int],
    *,
    per_token: int = 100,
    length: int = 50,
    start: tuple[int, int] | None = None,
    split: Split = "train",
) -> Snippets:
    """The first `per_token` windows around each new token, in reading order.

    Reading stops when every token has enough. Kept in the cache folder and found again by its hash.

    Args:
        corpus: Text.
        alignment: Cuts it twice.
        ids: New tokens, target ids.
        per_token: Snippets for each of them.
        length: Most tokens of a window in either cut; the new token stands in its middle where the text
            allows it.
        start: Source and target id of a beginning-of-text token to put in front (it counts as one).
        split: Part of the corpus.

    Raises:
        UserError: None of the tokens occurs in the text.
    """
    wanted = sorted({int(i) for i in ids})
    recipe = [_VERSION, corpus.fingerprint, alignment.fingerprint, wanted, per_token, length, start, split]
    key = digest(recipe)
    folder = cache_home() / "snippets" / key
    if (folder / "snippets.json").is_file():
        return Snippets(np.load(folder / "rows.npy"), np.load(folder / "tokens.npy"), key)
    miner = Miner(wanted, per_token, length, start)
    size = max(corpus.source.num_bytes, 1)
    with progress(f"Snippets of {corpus.name} ({split})", size) as task:
        seen = 0
        for batch in _batches(corpus.documents(split)):
            miner.add(alignment.texts([document.text for document in batch]))
            seen += sum(document.num_bytes for document in batch)
            task.update(min(seen, size), f"{len(miner.tokens):,} snippets")
            if miner.done:
                break
    if not miner.tokens:
        raise UserError(
            f"none of the {len(wanted):,} new tokens occurs in the text",
            where=corpus.name,
            fix="give text of the new language or domain",
        )
    found = miner.snippets(key)
    if not folder.exists():
        with atomic_folder(folder) as temporary:
            np.save(temporary / "rows.npy", found.rows)
            np.save(temporary / "tokens.npy", found.tokens)
            (temporary / "snippets.json").write_text(json.dumps({"recipe": recipe}, default=str))
    return found


class Miner:
    """Takes windows out of aligned text until every token has enough.

    Args:
        ids: New tokens, target ids.
        per_token: Windows wanted for each.
        length: Most tokens of a window in either cut.
        start: Source and target id put in front of each window, or None.
    """

    def __init__(
        self, ids: Sequence[int], per_token: int, length: int, start: tuple[int, int] | None = None
    ) -> None:
        self.length, self.start = length, start
        self.rows: list[np.ndarray] = []
        self.tokens: list[int] = []
        self._missing = np.zeros(1 + max(ids, default=0), dtype=np.int64)
        self._missing[list(ids)] = per_token

    @property
    def done(self) -> bool:
        """Whether no token misses a window."""
        return not self._missing.any()

    def want(self, index: int) -> None:
        """One more window for the token `index`."""
        self._missing[index] += 1

    def add(self, text: Aligned, only: int | None = None) -> None:
        """Take what is missing from `text`, or what is missing of one token alone."""
        target = text.target
        known = (target >= 0) & (target < len(self._missing))
        wanted = known & (self._missing[np.where(known, target, 0)] > 0)
        places = np.flatnonzero(wanted if only is None else wanted & (target == only))
        if not len(places):
            return
        source_at, target_at = text.borders()
        marks = np.flatnonzero(text.source < 0)
        order = np.argsort(target[places], kind="stable")
        ids, first = np.unique(target[places[order]], return_index=True)
        for group, index in zip(np.split(order, first[1:]), ids.tolist()):
            for place in places[group[: _CHOICE * self._missing[index]]].tolist():
                if self._missing[index] == 0:
                    break
                row = self._window(text, place, source_at, target_at, marks)
                if row is not None:
                    self.rows.append(row)
                    self.tokens.append(index)
                    self._missing[index] -= 1

    def _window(
        self, text: Aligned, place: int, source_at: np.ndarray, target_at: np.ndarray, marks: np.ndarray
    ) -> np.ndarray | None:
        """The window around target token `place`, (3, length); None where its own borders do not agree."""
        border = int(np.searchsorted(target_at, place))
        if border + 1 >= len(target_at) or target_at[border] != place or target_at[border + 1] != place + 1:
            return None
        begin, end = int(source_at[border]), int(source_at[border + 1])
        room = self.length - (self.start is not None)
        number = int(np.searchsorted(marks, begin))
        low, high = (int(marks[number - 1]) + 1 if number else 0), int(marks[number])
        left = max(low, min((begin + end - room) // 2, high - room))
        first = int(np.searchsorted(source_at, left))
        last = int(np.searchsorted(source_at, min(high, left + room), side="right")) - 1
        while last > border + 1 and target_at[last] - target_at[first] > room:
            last -= 1
        while first < border and target_at[last] - target_at[first] > room:
            first += 1
        if not first <= border < last or target_at[last] - target_at[first] > room:
            return None
        s = slice(int(source_at[first]), int(source_at[last]))
        t = slice(int(target_at[first]), int(target_at[last]))
        if (text.source[s] < 0).any() or (text.target[t] < 0).any():
            return None
        return window_row(text, s, t, self.length, self.start)

    def snippets(self, fingerprint: str) -> Snippets:
        """All windows taken so far."""
        rows = np.stack(self.rows) if self.rows else np.empty((0, 3, self.length), dtype=np.int32)
        return Snippets(rows, np.array(self.tokens, dtype=np.int64), fingerprint)


def window_row(
    text: Aligned, source: slice, target: slice, length: int, start: tuple[int, int] | None = None
) -> np.ndarray:
    """A stretch of text that begins and ends at common borders as one row of `Snippets`, `(3, length)`.

    Args:
        text: Both cuts.
        source: The stretch in the old cut, within one text.
        target: The same in the new cut.
        length: Room for its tokens.
        start: Source and target id put in front, or None.
    """
    ends = text.ends[target]
    ends = np.where(ends < 0, 0, ends - source.start + (start is not None))
    heads: Any = [[], [], []] if start is None else [[start[0]], [start[1]], [1]]
    row = np.full((3, length), -1, dtype=np.int32)
    for line, head, body in zip(row, heads, (text.source[source], text.target[target], ends)):
        line[: len(head) + len(body)] = [*head, *body]
    return row


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
