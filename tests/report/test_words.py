"""Numbers as people read them."""

from __future__ import annotations

import pytest

from warmstart.report import words


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7, "7"), (819200, "819k"), (999_999, "1M"), (1_234_567, "1.23M"), (2.5e15, "2.5P")],
)
def test_si(value: float, text: str) -> None:
    assert words.si(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0432, "4.3 %"), (0.123, "12 %"), (0.0996, "10 %"), (1.0, "100 %"), (3.2, "320 %")]
)
def test_percent(value: float, text: str) -> None:
    assert words.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.54, "2.5 s"), (59.7, "1 min 0 s"), (133, "2 min 13 s"), (3600, "1 h 0 min"), (86399, "23 h 59 min")],
)
def test_duration(value: float, text: str) -> None:
    assert words.duration(value) == text


def test_hours() -> None:
    assert [words.hours(h) for h in (10, 2.14, 0.5, 0.01)] == [
        "10 hours",
        "2.1 hours",
        "30 minutes",
        "36 seconds",
    ]


def test_cost_has_a_unit() -> None:
    assert words.cost(2.95e13, "flops") == "29.5 TFLOP"
    assert words.cost(12.0, "flops") == "12 FLOP"
    assert words.cost(161, "seconds") == "2 min 41 s"
