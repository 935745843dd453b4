"""What answers earn."""

from __future__ import annotations

import pytest

from warmstart.corpus.named.arithmetic import ArithmeticSettings, problem
from warmstart.evaluation.reward import Graded, ResultReward, final_result

REWARD = ResultReward("The answer is", 0.25)
GOLD = " 3 + 4 = 7. The answer is 7."


@pytest.mark.parametrize(
    ("answer", "ended", "expected"),
    [
        (" The answer is 7.", True, Graded(1.25, True, True)),
        (" The answer is 7.", False, Graded(1.0, True, True)),
        (" 3 + 4 = 8. The answer is 8.", True, Graded(0.25, False, True)),
        (" 3 + 4 = 8. The answer is 8.", False, Graded(0.0, False, True)),
        (" 3 + 4 = 7.", True, Graded(0.0, False, False)),
        (" The answer is", True, Graded(0.0, False, False)),
        (" The answer is seven.", True, Graded(0.0, False, False)),
        (" The answer is 7 7.", True, Graded(0.0, False, False)),
        (" The answer is 7. Ann has 7.", True, Graded(0.0, False, False)),
        (" The answer is 8. The answer is 7.", True, Graded(1.25, True, True)),
        (" The answer is 07.", True, Graded(0.25, False, True)),
        ("", True, Graded(0.0, False, False)),
    ],
)
def test_marks(answer: str, ended: bool, expected: Graded) -> None:
    assert REWARD.grade(answer, GOLD, ended=ended) == expected


def test_results_in_words_need_one_line() -> None:
    gold = "The answer is blue."
    assert REWARD.grade("The answer is red", gold, ended=True) == Graded(0.25, False, True)
    assert REWARD.grade("The answer is red\nor blue", gold, ended=True) == Graded(0.0, False, False)
    assert REWARD.grade("The answer is blue", gold, ended=True).reward == REWARD.largest == 1.25


def test_every_solution_of_a_sum_earns_all() -> None:
    settings = ArithmeticSettings()
    for number in range(200):
        sums = problem(settings, f"0 {number}")
        for answer in (sums.chain(), sums.short()):
            assert final_result(answer, REWARD.marker) == str(sums.answer)
            assert REWARD.grade(answer, sums.short(), ended=True) == Graded(1.25, True, True)


def test_an_answer_without_a_result_cannot_be_the_right_one() -> None:
    with pytest.raises(ValueError, match="no 'The answer is' with a result"):
        REWARD.grade("The answer is 7.", "seven", ended=True)
