from __future__ import annotations

from typing import Literal

import pytest

from warmstart.foundation.errors import UserError
from warmstart.foundation.settings import Settings, digest


class Inner(Settings):
    learning_rate: float = 1e-3
    """Step size."""


class Outer(Settings):
    inner: Inner = Inner()
    """Nested."""
    kind: Literal["a", "b"] = "a"
    """Choice."""
    many: dict[str, Inner] = {}
    """Table of nested settings."""
    needed: int
    """Required."""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"needed": 1, "knd": "a"}, ["'knd'", "did you mean 'kind'?"]),
        ({"needed": 1, "inner": {"learning_rat": 1}}, ["'inner.learning_rat'", "'learning_rate'"]),
        ({"needed": 1, "many": {"x": {"learning_rat": 1}}}, ["'many.x.learning_rat'", "'learning_rate'"]),
        ({"needed": "many"}, ["needed", "'many'"]),
        ({"needed": 1, "inner": {"learning_rate": float("nan")}}, ["inner.learning_rate", "finite"]),
        ({}, ["'needed'", "missing"]),
        ({"needed": 1, "kind": "c"}, ["kind", "'c'"]),
        ([1], ["expected a table", "[1]"]),
    ],
)
def test_mistakes_become_one_sentence(data: object, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        Outer.parse(data, where="my.yaml")  # type: ignore[arg-type]
    sentence = caught.value.sentence
    assert "\n" not in sentence and "my.yaml" in sentence and sentence[-1] in ".?…"
    for word in words:
        assert word in sentence


def test_settings_are_immutable_and_documented() -> None:
    settings = Outer.parse({"needed": 3})
    with pytest.raises(Exception, match="frozen"):
        settings.needed = 4  # type: ignore[misc]
    assert Outer.model_fields["kind"].description == "Choice."
    assert Outer.parse(settings) is settings


def test_digest_ignores_order_and_sees_every_value() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    base = Outer.parse({"needed": 1})
    assert base.digest() == Outer.parse({"needed": 1, "kind": "a"}).digest()
    assert base.digest() != Outer.parse({"needed": 2}).digest()
    assert base.digest() != Outer.parse({"needed": 1, "inner": {"learning_rate": 2e-3}}).digest()
