"""Two cuts of one text aligned by dynamic time warping, as if only the tokens' spellings were known.

"Specializing Smaller Language Models towards Multi-Step Reasoning" (arXiv 2301.12726) warps the tokens of
teacher and student onto each other so that the summed edit distance of what stands together is least.

The released code's conventions are followed: edit distances are those of the tokens without spaces, not
divided by a length (an option). What is done with the path is in
[`Recut`][warmstart.vocabulary.recut.Recut].

Shapes: n tokens of the teacher, m of the student.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from warmstart.foundation.errors import UserError

_AT_ONCE = 2**20
"""Pairs of strings compared at a time."""


def warped(cost: np.ndarray) -> tuple[np.ndarray, float]:
    """The cheapest monotone path from the first to the last pair, and its cost.

    `D[i, j] = cost[i, j] + min(D[i-1, j-1], D[i-1, j], D[i, j-1])`, computed along anti-diagonals. Of equally
    cheap paths the one that is diagonal as late as possible is taken, so that equal sequences are paired one
    to one even where a token is repeated.

    Args:
        cost: (n, m), not negative.

    Returns:
        The path, (p, 2) pairs of steps, and the sum of costs along it.

    Raises:
        UserError: One of the sequences is empty.
    """
    cost = np.asarray(cost, dtype=np.float64)
    n, m = cost.shape
    if not n or not m:
        raise UserError("a sequence without tokens cannot be aligned")
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0.0
    for diagonal in range(n + m - 1):
        i = np.arange(max(0, diagonal - m + 1), min(n, diagonal + 1))
        j = diagonal - i
        before = np.minimum(np.minimum(total[i, j], total[i, j + 1]), total[i + 1, j])
        total[i + 1, j + 1] = cost[i, j] + before
    i, j, path = n, m, []
    while i and j:
        path.append((i - 1, j - 1))
        steps = ((i - 1, j - 1), (i - 1, j), (i, j - 1))
        i, j = min(steps, key=lambda place: total[place])  # the first of equals: the diagonal
    return np.array(path[::-1]), float(total[n, m])


def token_costs(teacher: Sequence[str], student: Sequence[str], *, normalised: bool = False) -> np.ndarray:
    """Edit distances of the tokens of two texts, spaces aside, (n, m) float64.

    Args:
        teacher: Strings of the teacher's tokens, as text (a leading space is a space).
        student: Those of the student's.
        normalised: Divide by the longer length, so that long tokens do not decide alone.
    """
    rows, row = np.unique([_bare(token) for token in teacher], return_inverse=True)
    columns, column = np.unique([_bare(token) for token in student], return_inverse=True)
    found = edit_distances(rows.tolist(), columns.tolist()).astype(np.float64)
    if normalised:
        lengths = np.maximum.outer([len(token) for token in rows], [len(token) for token in columns])
        found /= np.maximum(lengths, 1)
    return found[np.ix_(row, column)]


def edit_distances(one: Sequence[str], other: Sequence[str]) -> np.ndarray:
    """Levenshtein distance of every pair of strings, (len(one), len(other)) int64."""
    out = np.zeros((len(one), len(other)), dtype=np.int64)
    size = max(1, _AT_ONCE // max(len(other), 1))
    lengths = np.array([len(text) for text in other], dtype=np.int64)
    letters = _letters(other, -1)
    for start in range(0, len(one), size):
        part = one[start : start + size]
        out[start : start + size] = _distances(_letters(part, -2), [len(t) for t in part], letters, lengths)
    return out


def _distances(
    rows: np.ndarray, row_lengths: Sequence[int], columns: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Distances of strings as padded letters (A, L) and (B, M): the usual table, for all pairs at once."""
    count, many = len(rows), len(columns)
    found = np.zeros((count, many), dtype=np.int64)
    line = [np.full((count, many), j, dtype=np.int64) for j in range(columns.shape[1] + 1)]
    for i in range(rows.shape[1] + 1):
        if i:
            before, line = line, [np.full((count, many), i, dtype=np.int64)]
            for j in range(columns.shape[1]):
                other = rows[:, i - 1, None] != columns[None, :, j]
                line.append(np.minimum(np.minimum(before[j + 1], line[j]) + 1, before[j] + other))
        for number in np.flatnonzero(np.asarray(row_lengths) == i):
            found[number] = np.stack([entry[number] for entry in line])[lengths, np.arange(many)]
    return found


def _letters(texts: Sequence[str], filler: int) -> np.ndarray:
    """Code points, filled up to the longest, (N, L)."""
    out = np.full((len(texts), max(map(len, texts), default=0)), filler, dtype=np.int64)
    for line, text in zip(out, texts, strict=True):
        line[: len(text)] = [ord(letter) for letter in text]
    return out


def _bare(token: str) -> str:
    return token.replace(" ", "")
