"""Cuts documents into the passages on which each kind of model is measured."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from warmstart.evaluation.likelihood import Passage
from warmstart.evaluation.special import mask_token, sentinels, start_token, surrounding
from warmstart.foundation.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]


class Causal:
    """Sliding windows in which each token of a document is predicted exactly once.

    The first token is predicted from the document-start token. A window reaches at most `context` positions
    and, but for the first, predicts at most `stride` new tokens, so that each of them sees at least
    `context - stride` positions before it (or everything from the start of the document).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int, stride: int | None) -> None:
        self.start, self.context = start_token(tokenizer), context
        self.stride = context // 2 if stride is None else stride
        if not 0 < self.stride <= context:
            raise UserError(f"stride is {self.stride}", fix=f"choose 1 to the context length {context}")

    def cut(self, document: int, ids: Sequence[int]) -> Iterator[Passage]:
        """Passages of one document."""
        inputs = [self.start, *ids[:-1]]
        done = 0
        while done < len(ids):
            end = min(self.context if not done else done + self.stride, len(ids))
            begin = max(0, end - self.context)
            context = [-100] * (done - begin)
            yield Passage(document, inputs[begin:end], [*context, *ids[done:end]])
            done = end


class Masked:
    """Windows in which all pieces of the chosen words are masked together and predicted."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        self.before, self.after = surrounding(tokenizer)
        self.mask = mask_token(tokenizer)
        self.room = _room(context, self.before, self.after)

    def cut(
        self, document: int, ids: Sequence[int], chosen: Sequence[bool], inside: Sequence[bool]
    ) -> Iterator[Passage]:
        """Passages of one document.

        Args:
            document: Its number.
            ids: Its tokens.
            chosen: Which of them belong to a chosen word.
            inside: Which of them continue a word, so that no window should begin there.
        """
        for begin, end in windows(inside, self.room):
            if not any(chosen[begin:end]):
                continue
            body = [self.mask if hit else i for i, hit in zip(ids[begin:end], chosen[begin:end])]
            goal = [i if hit else -100 for i, hit in zip(ids[begin:end], chosen[begin:end])]
            yield Passage(
                document,
                [*self.before, *body, *self.after],
                [*[-100] * len(self.before), *goal, *[-100] * len(self.after)],
            )


class Seq2Seq:
    """Windows in which the chosen words are replaced by sentinels; the decoder writes them out.

    Neighbouring tokens of chosen words form one span. The decoder's text is `<extra_id_0> span <extra_id_1>
    span … </s>` and all of it is measured: sentinels and end say where a word stops, which the number of mask
    tokens tells a masked model for free. A window with more spans than sentinels is passed several times.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context: int) -> None:
        self.before, self.after = surrounding(tokenizer)
        self.sentinels = sentinels(tokenizer)
        self.end = self.after[-1] if self.after else tokenizer.eos_token_id
        self.room = _room(context, self.before, self.after)

    def cut(
        self, document: int, ids: Sequence[int], chosen: Sequence[bool], inside: Sequence[bool]
    ) -> Iterator[Passage]:
        """Passages of one document; arguments as for `Masked.cut`."""
        for begin, end in windows(inside, self.room):
            spans = runs(chosen[begin:end])
            for first in range(0, len(spans), len(self.sentinels)):
                part = spans[first : first + len(self.sentinels)]
                body, goal = corrupt(ids[begin:end], part, self.sentinels)
                closing = [] if self.end is None else [int(self.end)]
                yield Passage(document, [*self.before, *body, *self.after], [*goal, *closing])


def corrupt(ids: Sequence[int], spans: Sequence[Span], marks: Sequence[int]) -> tuple[list[int], list[int]]:
    """Inputs and targets of span corruption: span k becomes mark k, the targets are mark k and the span."""
    inputs: list[int] = []
    targets: list[int] = []
    done = 0
    for (begin, end), mark in zip(spans, marks):
        inputs += [*ids[done:begin], mark]
        targets += [mark, *ids[begin:end]]
        done = end
    return [*inputs, *ids[done:]], targets


def runs(flags: Sequence[bool]) -> list[Span]:
    """Begin and end of each longest run of true values."""
    found: list[Span] = []
    begin: int | None = None
    for i, flag in enumerate([*flags, False]):
        if flag and begin is None:
            begin = i
        elif not flag and begin is not None:
            found.append((begin, i))
            begin = None
    return found


def windows(inside: Sequence[bool], room: int) -> Iterator[Span]:
    """Consecutive windows of at most `room` tokens, ending before a word rather than in it where possible."""
    begin = 0
    while begin < len(inside):
        end = min(begin + room, len(inside))
        if end < len(inside):
            end = next((i for i in range(end, begin + room // 2, -1) if not inside[i]), end)
        yield begin, end
        begin = end


def belonging(text: str, offsets: Sequence[Span], words: Sequence[Span]) -> tuple[list[bool], int]:
    """Which tokens overlap one of `words` (in order, not overlapping), and how many words have no token.

    A token that reaches beyond a word (with its leading space, say) belongs to it as a whole. A token that is
    only the space before a word belongs to the word too: elsewhere the space is in the word's first token,
    and left to be seen it would tell that no such token follows.
    """
    starts = [begin for begin, _ in words]
    first = set(starts)
    hits = [False] * len(offsets)
    covered = [False] * len(words)
    for i, (begin, end) in enumerate(offsets):
        k = bisect_left(starts, end) - 1  # the last word that begins before the token ends
        while k >= 0 and words[k][1] > begin and end > begin:
            hits[i] = covered[k] = True
            k -= 1
        if end in first and text[begin:end] == " ":
            hits[i] = True
    return hits, covered.count(False)


def continuing(offsets: Sequence[Span], words: Sequence[Span]) -> list[bool]:
    """Which tokens begin strictly inside a word (or in the middle of a character)."""
    starts = [begin for begin, _ in words]
    found = []
    previous = -1
    for begin, _ in offsets:
        k = bisect_left(starts, begin) - 1  # the last word that begins before this token
        found.append(begin == previous or (k >= 0 and words[k][1] > begin))
        previous = begin
    return found


def _room(context: int, before: Sequence[int], after: Sequence[int]) -> int:
    room = context - len(before) - len(after)
    if room < 2:
        raise UserError(f"context_length {context} leaves no room for text", fix="use a larger one")
    return room
