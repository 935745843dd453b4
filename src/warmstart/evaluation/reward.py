"""What an answer earns whose final result is known: for being right, and for saying a result and ending."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


class Graded(NamedTuple):
    """One answer's mark.

    Attributes:
        reward: What it earns.
        correct: Whether its final result is the right one.
        readable: Whether it has a final result of the right kind.
    """

    reward: float
    correct: bool
    readable: bool


@dataclass(frozen=True)
class ResultReward:
    """`correct + w * (readable and ended)`, between 0 and 1 + w.

    Attributes:
        marker: What stands in front of the final result.
        format_weight: w.
    """

    marker: str = "The answer is"
    format_weight: float = 0.1

    @property
    def largest(self) -> float:
        """What a right answer in the right form earns."""
        return 1.0 + self.format_weight

    def grade(self, answer: str, gold: str, *, ended: bool) -> Graded:
        """Mark an answer.

        The result is right when it is the right answer's, as text. It is readable when there is one at all,
        on one line, and when it is a number where the right one is a number.

        Args:
            answer: What was written, without its end of text.
            gold: The right answer, with the marker and the result.
            ended: Whether the writer said that its answer ends.
        """
        found, wanted = final_result(answer, self.marker), final_result(gold, self.marker)
        if not wanted:
            raise ValueError(f"no {self.marker!r} with a result behind it in {gold!r}")
        readable = bool(found) and "\n" not in found
        if readable and _NUMBER.fullmatch(wanted):
            readable = _NUMBER.fullmatch(found) is not None
        correct = found == wanted
        return Graded(correct + self.format_weight * (readable and ended), correct, readable)


def final_result(text: str, marker: str) -> str:
    """What stands behind the last `marker`, without blanks around it and its full stop; empty without one.

    Whatever comes behind the result belongs to it: `The answer is 7. No, 8.` has the result `7. No, 8`.
    """
    _, found, behind = text.rpartition(marker)
    return behind.strip().removesuffix(".").rstrip() if found else ""
