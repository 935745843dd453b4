"""Putting pieces into the model of a tokenizer, so that it really produces them.

`add_tokens` of the library puts strings beside the model: they match inside longer words, before anything is
pre-tokenised. A piece of the model needs more than an entry: in BPE merges that lead to it, in Unigram a
score that makes it win.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from warmstart.vocabulary.forge.auxiliary import Auxiliary
from warmstart.vocabulary.forge.merges import Merge, Merges, first_merge
from warmstart.vocabulary.forge.state import strings, with_added

Placement = Literal["last", "first", "whole"]
UNKNOWN_PENALTY = 10.0  # of the library: an unknown character scores so much below the lowest piece


@dataclass(frozen=True)
class Inserted:
    """A tokenizer.json dictionary with new pieces in its model.

    Attributes:
        state: The dictionary.
        added: New pieces in the order of their ids.
        helpers: Those of them that nobody asked for: characters and results of merges on the way to others.
    """

    state: dict[str, Any]
    added: list[str]
    helpers: list[str]


def insert_bpe(
    state: dict[str, Any],
    pieces: Iterable[str],
    *,
    limit: int | None = None,
    banned: Collection[str] = (),
    place: Placement = "last",
    auxiliary: Auxiliary | None = None,
) -> Inserted:
    """New pieces of a BPE with the merges that lead to them.

    `last`: the parts of a new merge are what the tokenizer so far makes of the piece, so that the merge,
    behind all others, always finds them. A piece in more than two parts needs others on the way, which become
    tokens as well. Every new piece encodes to itself.

    `first`, as in the released code of LowRes-CVE (arXiv 2406.11477): all merges of the auxiliary tokenizer
    whose three strings are tokens go to the front, also those that the tokenizer had in another place.
    Without an auxiliary tokenizer the merges of `last` go to the front. Merges then compete, and a new piece
    may not encode to itself. Not kept from the released code: parts of a piece that are added beyond the
    number asked for.

    `whole`: no merges, and `ignore_merges` set, by which the library looks a whole pre-tokenised word up
    before it merges. A new piece is produced where it is such a word and nowhere else, and needs no others on
    the way.

    Args:
        state: From [`changeable`][warmstart.vocabulary.forge.state.changeable].
        pieces: Candidates; known ones are passed over.
        limit: Most new tokens, helpers included; candidates that do not fit are passed over.
        banned: Strings that must not become tokens.
        place: Where the new merges go.
        auxiliary: Where the candidates come from.
    """
    full = with_added(state)
    vocab = dict(full["model"]["vocab"])
    reserved = {token["content"] for token in state["added_tokens"]}
    old: list[Merge] = list(full["model"]["merges"])
    candidates = list(pieces)
    wanted, room = set(candidates), math.inf if limit is None else limit
    new_merges: list[Merge] = []
    added: list[str] = []
    known = Merges(old)
    own = dict.fromkeys(auxiliary.merges) if auxiliary and place == "first" else None
    halves = {left + right: (left, right) for left, right in reversed(own)} if own is not None else {}

    def costs(string: str) -> float:
        if string in banned or string in reserved:
            return math.inf
        if string in vocab:  # a token that was never produced: its rows are not worth reviving
            return 2.0
        return 1.0 if string in wanted else 1.5

    for piece in candidates:
        if len(added) >= room:
            break
        if piece in vocab or piece in banned:
            continue
        if place == "whole":
            found: tuple[list[str], list[Merge]] | None = [piece], []
        elif own is not None:
            found = _from_auxiliary(piece, halves, vocab, banned)
        else:
            found = _from_parts(piece, known, vocab, costs, banned)
        if found is None:
            continue
        fresh, steps = found
        if len(added) + len(fresh) > room:
            known.remove_last(len(steps) if own is None else 0)
            continue
        start = max(vocab.values(), default=-1) + 1
        vocab.update(zip(fresh, itertools.count(start)))
        added += fresh
        new_merges += steps
    if own is not None:
        front = [m for m in own if m[0] in vocab and m[1] in vocab and m[0] + m[1] in vocab]
        moved = set(front)
        merges = front + [m for m in old if m not in moved]
    else:
        merges = [*new_merges, *old] if place == "first" else [*old, *new_merges]
    model = full["model"] | {"vocab": vocab, "merges": merges}
    if place == "whole":
        model["ignore_merges"] = True
    return Inserted(full | {"model": model}, added, [piece for piece in added if piece not in wanted])


def _from_parts(
    piece: str, known: Merges, vocab: dict[str, int], costs: Any, banned: Collection[str]
) -> tuple[list[str], list[Merge]] | None:
    """New tokens (the piece last) and merges by which `known` comes to make the piece of its characters."""
    fresh = list(dict.fromkeys(c for c in piece if c not in vocab))
    if any(character in banned for character in fresh):
        return None
    steps: list[Merge] = []
    while len(parts := known.cut(piece)) > 1:
        merge = first_merge(parts, costs)
        if merge is None:
            known.remove_last(len(steps))
            return None
        known.append(merge)
        steps.append(merge)
        result = merge[0] + merge[1]
        if result not in vocab and result not in fresh:
            fresh.append(result)
    return fresh, steps


def _from_auxiliary(
    piece: str, halves: dict[str, Merge], vocab: dict[str, int], banned: Collection[str]
) -> tuple[list[str], list[Merge]] | None:
    """The piece, after the characters that it is merged of, where longer halves are tokens by now."""
    missing = [half for half in dict.fromkeys(halves.get(piece, ())) if half not in vocab]
    if any(len(half) > 1 or half in banned for half in missing):
        return None
    return [*missing, piece], []


def insert_unigram(
    state: dict[str, Any],
    pieces: Iterable[str],
    *,
    limit: int | None = None,
    banned: Collection[str] = (),
    scores: Literal["pieces", "auxiliary", "zero"] = "pieces",
    margin: float = 0.1,
    auxiliary: Auxiliary | None = None,
) -> Inserted:
    """New pieces of a Unigram model with scores.

    `pieces`: `score(t) = max(best(t) + margin, lowest old score)`, where `best(t)` is the score of the best
    cut of t into other pieces, new ones included; pieces are therefore scored in order of their length. Each
    new piece encodes to itself, and old text is cut in another way only where that costs less than `margin`.
    `auxiliary`: `max(that, log p_aux(t) + shift)`, where `shift` is the mean difference between the old and
    the auxiliary score over the pieces of both, weighted by p_aux. `zero`: 0, as the released code of
    LowRes-CVE has it (arXiv 2406.11477): every text is then cut into as many new pieces as possible.

    Args:
        state: From [`changeable`][warmstart.vocabulary.forge.state.changeable].
        pieces: Candidates; known ones are passed over.
        limit: Most new tokens.
        banned: Strings that must not become tokens.
        scores: How new pieces are scored.
        margin: In nats.
        auxiliary: Where the candidates come from.
    """
    full = with_added(state)
    table = [(piece, float(score)) for piece, score in full["model"]["vocab"]]
    known = dict(table)
    added = list(
        itertools.islice((p for p in dict.fromkeys(pieces) if p not in known and p not in banned), limit)
    )
    special = {token["content"] for token in state["added_tokens"]}
    least = min(known.values())
    usable = {piece: score for piece, score in known.items() if piece not in special}
    shift = _shift(usable, auxiliary.scores) if auxiliary and scores == "auxiliary" else 0.0
    made: dict[str, float] = {}
    for piece in sorted(added, key=len):
        score = 0.0
        if scores != "zero":
            score = max(best_cut(piece, usable, least - UNKNOWN_PENALTY) + margin, least)
        if auxiliary and scores == "auxiliary":
            score = max(score, auxiliary.scores[piece] + shift)
        made[piece] = usable[piece] = score
    model = full["model"] | {"vocab": [*map(list, table), *([piece, made[piece]] for piece in added)]}
    return Inserted(full | {"model": model}, added, [])


def best_cut(piece: str, scores: dict[str, float], unknown: float) -> float:
    """Score of the best way to cut a string into known pieces; a character that is none scores `unknown`."""
    best = [0.0] + [-math.inf] * len(piece)
    for stop in range(1, len(piece) + 1):
        for start in range(stop):
            score = scores.get(piece[start:stop])
            if score is not None:
                best[stop] = max(best[stop], best[start] + score)
        if piece[stop - 1] not in scores:
            best[stop] = max(best[stop], best[stop - 1] + unknown)
    return best[-1]


def _shift(old: dict[str, float], new: dict[str, float]) -> float:
    shared = [piece for piece in new if piece in old]
    weights = [math.exp(new[piece]) for piece in shared]
    total = sum(weight * (old[piece] - new[piece]) for weight, piece in zip(weights, shared))
    return total / sum(weights) if shared else 0.0


def insert_wordpiece(
    state: dict[str, Any],
    pieces: Sequence[str] | Iterable[str],
    *,
    limit: int | None = None,
    banned: Collection[str] = (),
) -> Inserted:
    """New pieces of a WordPiece model, which takes the longest piece that fits and needs nothing else.

    Args:
        state: From [`changeable`][warmstart.vocabulary.forge.state.changeable].
        pieces: Candidates as the vocabulary writes them (`##ing` inside words); known ones are passed over.
        limit: Most new tokens.
        banned: Strings that must not become tokens.
    """
    full = with_added(state)
    vocab = dict(strings(full))
    fresh = (p for p in dict.fromkeys(pieces) if p not in vocab and p not in banned)
    added = list(itertools.islice(fresh, limit))
    vocab.update(zip(added, itertools.count(max(vocab.values(), default=-1) + 1)))
    return Inserted(full | {"model": full["model"] | {"vocab": vocab}}, added, [])
