"""Script: each row is drawn from the moments of its own category, found as Unicode says."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from aux_worlds import byte_bpe, context, encipher, english

from warmstart.foundation.errors import UserError
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.rows._base import RowContext
from warmstart.vocabulary.rows.script import SCRIPTS, ScriptSettings, script, script_of


def world(**options: object) -> RowContext:
    """A source with Latin and Greek words and one Hebrew letter; a target with Cyrillic ones besides."""
    texts = list(english()[:500])
    mixed = [*texts[:150], *map(encipher, texts[150:300]), *["א"] * 3]
    cyrillic = [t.translate(str.maketrans("abcdefghijklmno", "абвгдежзийклмно")) for t in texts[300:400]]
    target = [*texts[400:], *map(encipher, texts[300:400]), *cyrillic, *["אב אב"] * 3]
    return context(byte_bpe(mixed, 900), byte_bpe(target, 900), dim=4, **options)


@pytest.fixture(scope="module")
def made() -> RowContext:
    return world()


def key(token, position: bool):  # type: ignore[no-untyped-def]
    """The category, by another road: names of Unicode characters begin with the script's."""
    if not token.is_text:
        return "bytes", position and token.starts_word
    kinds = []
    for character in token.text:
        name = unicodedata.name(character, "?").split()[0]
        latin = name == "LATIN" and character.isalpha()
        kinds.append(name if latin or name in ("GREEK", "CYRILLIC", "HEBREW") else "COMMON")
    return max(
        kinds, key=lambda kind: (kinds.count(kind), -kinds.index(kind))
    ), position and token.starts_word


@pytest.mark.parametrize("position", [True, False])
def test_rows_equal_a_loop_over_categories(made: RowContext, position: bool) -> None:
    mix = script(made, ScriptSettings(position=position)).check()
    assert isinstance(mix, ComputedMix)
    new, used = made.vocab.new, made.vocab.source_used
    rows = made.rows.astype(np.float64)
    got = mix.compute(new, rows, which="input", reference=used, rng=np.random.default_rng(7))
    noise = np.random.default_rng(7).standard_normal((len(new), 4))
    groups: dict[object, list[int]] = {}
    for token in made.vocab.source:
        if token.role is None:
            groups.setdefault(key(token, position), []).append(token.id)
    own = 0
    for number, index in enumerate(new):
        members = groups.get(key(made.vocab.target[index], position), [])
        part = rows[members] if len(members) > 1 else rows[used]
        own += len(members) > 1
        expected = part.mean(axis=0) + noise[number] * part.std(axis=0)
        np.testing.assert_allclose(got[number], expected, atol=1e-9)
    assert 100 < own < len(new), "both known and unseen categories must occur"
    assert len(groups) > (6 if position else 3)


def test_position_splits_categories_and_changes_rows(made: RowContext) -> None:
    rows = made.rows.copy()
    starts = [t.id for t in made.vocab.source if t.role is None and t.starts_word]
    rows[starts] += 100
    new = made.vocab.new
    split, joint = (
        script(made, ScriptSettings(position=p)).apply(rows, rng=np.random.default_rng(0))[new].mean(axis=1)
        for p in (True, False)
    )
    begins = np.array([made.vocab.target[i].starts_word for i in new])
    latin = np.array([script_of(made.vocab.target[i].text) == "latin" for i in new])
    assert split[begins & latin].min() > 90 and np.abs(split[~begins & latin]).max() < 10
    assert not (joint[begins & latin].min() > 90)


def test_special_rows_neither_count_nor_change(made: RowContext) -> None:
    rows = made.rows.copy()
    special = made.vocab.roles
    rows[special[:, 1]] = 1e6
    mix = script(made, ScriptSettings()).with_copies(made.vocab.overlap).with_copies(special)
    filled = mix.apply(rows, rng=np.random.default_rng(0), reference=made.vocab.source_used)
    assert (filled[special[:, 0]] == 1e6).all()
    pairs = made.vocab.overlap
    assert np.array_equal(filled[pairs[:, 0]], rows[pairs[:, 1]])
    latin = [i for i in made.vocab.new if script_of(made.vocab.target[i].text) == "latin"]
    assert np.abs(filled[latin]).max() < 10


def test_without_copies_every_text_row_is_drawn() -> None:
    free = world(copy_overlap=False)
    mix = script(free, ScriptSettings())
    assert isinstance(mix, ComputedMix)
    assert np.array_equal(np.flatnonzero(mix.computed), free.vocab.text_ids)


def test_ties_go_to_the_first_script_and_marks_count_as_they_are() -> None:
    assert [script_of(t) for t in ("1a", "a1", "дa", "", "ab1", "e\u0301")] == [
        "common", "latin", "cyrillic", "common", "latin", "latin",
    ]  # fmt: skip


def test_every_character_that_has_a_script_is_found() -> None:
    """A script missing from the list would turn its characters into `unknown` without a word."""
    assert len(set(SCRIPTS)) == len(SCRIPTS) and script_of("ก") == "thai"
    probed = [*range(0x3000), *range(0x3000, 0x20000, 17)]
    assigned = [c for c in map(chr, probed) if unicodedata.category(c) not in ("Cn", "Co", "Cs")]
    assert len(assigned) > 10000 and not [c for c in assigned if script_of(c) == "unknown"]
    assert script_of("\U0001fffe") == "unknown"


def test_an_unknown_option_is_named() -> None:
    with pytest.raises(UserError, match="did you mean 'position'"):
        ScriptSettings.parse({"positon": True})
